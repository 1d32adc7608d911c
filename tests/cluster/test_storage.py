"""Content-addressed exchange: what is uploaded when, what a node downloads, and that damage is
noticed.

`memory://` stands for an object store, a folder for a mounted one.
"""

import hashlib
import json
import tempfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from adapt.cluster import storage
from adapt.params import InputError


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty remote storage, and a node whose cache is below `tmp_path`."""
    (tmp_path / "node").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "node"))
    bucket = f"memory://{uuid.uuid4().hex}"
    yield f"{bucket}/prefix"
    storage.remove(bucket)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(b"abc")
    (folder / "sub" / "config.json").write_bytes(b"{}")
    return folder


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def find(uri: str) -> list[str]:
    fs, path = fsspec.core.url_to_fs(uri)
    return [name.removeprefix(f"{path}/") for name in fs.find(path)]


def test_digest_is_over_sorted_names_and_contents(model: Path) -> None:
    expected = sha(f"sub/config.json\0{sha(b'{}')}\nweights.bin\0{sha(b'abc')}\n".encode())
    assert storage.digest(storage.files_of(model)) == expected
    (model / "weights.bin").rename(model / "weights.pt")
    assert storage.digest(storage.files_of(model)) != expected


def test_one_file_is_a_folder_with_one_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    file = tmp_path / "folder" / "a.parquet"
    file.write_bytes(b"1")
    assert storage.files_of(file) == storage.files_of(file.parent) == {"a.parquet": file}


def test_shared_once_and_fetched_once(
    remote: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = storage.share(model, remote)
    key = storage.digest(storage.files_of(model))
    assert uri == f"{remote}/inputs/{key}"
    assert find(remote) == [
        f"inputs/{key}.json",
        f"inputs/{key}/sub/config.json",
        f"inputs/{key}/weights.bin",
    ]
    assert storage.read_json(f"{remote}/inputs/{key}.json") == {
        "sub/config.json": 2,
        "weights.bin": 3,
    }
    assert "uploading" in capsys.readouterr().out

    assert storage.share(model, remote) == uri
    assert capsys.readouterr().out == "model: 2 files, 0.0 MB: already on the storage\n"

    copy = storage.fetch(uri)
    assert {name: path.read_bytes() for name, path in storage.files_of(copy).items()} == {
        "sub/config.json": b"{}",
        "weights.bin": b"abc",
    }
    storage.remove(remote)
    assert storage.fetch(uri) == copy


def test_a_single_file_keeps_its_name(remote: str, tmp_path: Path) -> None:
    file = tmp_path / "pairs.parquet"
    file.write_bytes(b"1")
    uri = storage.share(file, remote)
    assert uri.endswith("/pairs.parquet")
    copy = storage.fetch(uri)
    assert (copy.name, copy.read_bytes()) == ("pairs.parquet", b"1")


def test_an_upload_that_broke_off_is_done_again(remote: str, model: Path) -> None:
    uri = storage.share(model, remote)
    fs, path = fsspec.core.url_to_fs(uri)
    fs.rm(f"{path}.json")  # written last
    fs.rm(f"{path}/weights.bin")
    assert storage.share(model, remote) == uri
    assert (storage.fetch(uri) / "weights.bin").read_bytes() == b"abc"


def test_damage_on_the_storage_is_noticed(remote: str, model: Path) -> None:
    uri = storage.share(model, remote)
    fs, path = fsspec.core.url_to_fs(uri)
    fs.pipe_file(f"{path}/weights.bin", b"abd")
    with pytest.raises(InputError, match="damaged"):
        storage.fetch(uri)
    fs.pipe_file(f"{path}/weights.bin", b"abc")
    assert (storage.fetch(uri) / "weights.bin").read_bytes() == b"abc"


def test_workers_of_one_node_may_fetch_at_once(remote: str, model: Path) -> None:
    uri = storage.share(model, remote)
    with ThreadPoolExecutor(8) as pool:
        copies = set(pool.map(storage.fetch, [uri] * 8))
    assert len(copies) == 1 and (copies.pop() / "weights.bin").read_bytes() == b"abc"


def test_mounted_storage_is_read_in_place(tmp_path: Path, model: Path) -> None:
    uri = storage.share(model, str(tmp_path / "mount"))
    assert storage.fetch(uri) == Path(uri)
    assert (Path(uri) / "sub/config.json").read_bytes() == b"{}"
    with pytest.raises(InputError, match=r"elsewhere: not visible.*ADAPT_RAY_STORAGE"):
        storage.fetch(str(tmp_path / "elsewhere"))


@pytest.mark.parametrize("kind", ["remote", "mounted"])
def test_a_result_is_complete_or_absent(
    kind: str, remote: str, tmp_path: Path, model: Path
) -> None:
    uri = f"{remote if kind == 'remote' else tmp_path / 'mount'}/jobs/one"
    storage.write_json(f"{uri}/job.json", {"stage": "x"})
    with pytest.raises(FileNotFoundError):
        storage.collect(uri, tmp_path / "out")
    storage.publish(model, uri, {"metrics": {"loss": 0.5}})
    assert storage.collect(uri, tmp_path / "out")["metrics"] == {"loss": 0.5}
    assert storage.digest(storage.files_of(tmp_path / "out")) == storage.digest(
        storage.files_of(model)
    )

    fs, path = fsspec.core.url_to_fs(uri)
    fs.pipe_file(f"{path}/out/weights.bin", b"abd")
    with pytest.raises(InputError, match="damaged"):
        storage.collect(uri, tmp_path / "again")
    storage.remove(uri)
    assert not fs.exists(path)


def test_metrics_survive_json(remote: str, tmp_path: Path, model: Path) -> None:
    metrics = {"a": 0.1 + 0.2, "b": float("inf"), "c": -0.0}
    storage.publish(model, remote, {"metrics": metrics})
    assert json.dumps(storage.collect(remote, tmp_path / "out")["metrics"]) == json.dumps(metrics)


def test_nothing_to_share(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="model: not found"):
        storage.share(tmp_path / "model", str(tmp_path))


@pytest.mark.parametrize("place", ["nosuch://bucket", "/proc/nowhere"])
def test_a_storage_that_cannot_be_used_is_named(place: str, model: Path) -> None:
    with pytest.raises(InputError, match=f"ADAPT_RAY_STORAGE: {place}: "), storage.named(place):
        storage.share(model, place)


def test_checkpoints_go_through_the_same_driver(remote: str, tmp_path: Path) -> None:
    assert storage.as_arrow(str(tmp_path)) == {"storage_path": str(tmp_path)}
    arrow = storage.as_arrow(f"{remote}/checkpoints")
    arrow["storage_filesystem"].create_dir(arrow["storage_path"])
    with arrow["storage_filesystem"].open_output_stream(f"{arrow['storage_path']}/x") as file:
        file.write(b"1")
    assert find(remote) == ["checkpoints/x"]
