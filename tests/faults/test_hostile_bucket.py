"""A storage that others can write to: whatever lies there, nothing is written outside the target,
nothing hangs, and what is wrong is one line.
"""

import dataclasses
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from adapt.cluster import remains, remote, storage
from adapt.cluster.followers import Follower
from adapt.cluster.remote import StageJob
from adapt.params import InputError
from tests.support.faults import fault

NAMES = [
    *("../x", "../../x", "a/../../x", "/abs/x", "//x", "./x", "a/./x", "a//x", "", ".", "..", "/"),
    *("a/", "..\\x", "C:\\x", "\\\\host\\x", "a\0b", "\0", "\n", "a\nb", "a\x1b[2Jb", "\x7f"),
    *("a" * 256, "a/" * 2000 + "x", "a" * 10_000, "é" * 200, "../" * 50 + "etc/passwd"),
    *("out/../../../x", "model/../../../../x", "~/../x/..", "a\x85b", "\ud800", "..//x", "x/.."),
    *(f"{'../' * depth}planted" for depth in range(1, 12)),
]
SIZES = [-1, -(2**70), 2**70, 10**15, True, 1.0, "3", None, [], {}, float("nan"), 4]
TEXTS = [
    *("", "{", "[]", "null", '"x"', "[" * 100_000, '{"a":' * 50_000, "\0" * 100, "\xff\xfe"),
    *('{"files": []}', '{"files": {}}', '{"files": "x"}', '{"files": null, "metrics": {}}'),
    '{"files": {"a": 1}, "metrics": {"loss": "1"}, "digest": "0"}',
    '{"files": {"a": 1}, "metrics": [1], "digest": "0"}',
    '{"files": {"a": 1}, "metrics": {"loss": true}, "digest": "0"}',
    json.dumps({"files": {f"{n}": 0 for n in range(100_001)}, "metrics": {}}),
    " " * (2**24 + 1),
    f'{{"files": {"9" * 5000}}}',
]


@pytest.fixture(params=["mounted", "object store"])
def bucket(request, tmp_path, monkeypatch) -> Iterator[str]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "node"))
    (tmp_path / "node").mkdir()
    place = tmp_path / "mount" if request.param == "mounted" else f"memory://{uuid.uuid4().hex}"
    yield f"{place}/prefix"
    storage.remove(str(place))


def plant(uri: str, content: str | bytes) -> None:
    fs, path = fsspec.core.url_to_fs(uri)
    fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    fs.pipe_file(path, data)


def refused(read, tmp_path: Path) -> str:
    """What is said, in one line; nothing is outside the target, and it took no time."""
    (tmp_path / "target").mkdir(exist_ok=True)
    before, start = outside(tmp_path), time.monotonic()
    with pytest.raises((InputError, RuntimeError)) as error, storage.named("bucket"):
        read()
    assert time.monotonic() - start < 30 and outside(tmp_path) == before
    line = str(error.value)
    assert line.isprintable() and len(line) < 5000, line
    return line


def outside(tmp_path: Path) -> set[str]:
    """Everything near and far that a name could have reached, but for the target itself."""
    near = {str(path) for path in tmp_path.rglob("*") if "target/" not in str(path)}
    far = [tmp_path.parent, Path("/abs"), Path("/"), Path.cwd(), Path.cwd().parent]
    return near | {f"{place}/{name}" for place in far if place.is_dir() for name in planted(place)}


def planted(place: Path) -> list[str]:
    return [name for name in os.listdir(place) if name in ("x", "planted")]


def result(names: dict[object, object], **more: object) -> str:
    return json.dumps({"files": names, "metrics": {}, "digest": "0", **more})


@fault(
    "Somebody plants names in a result on the shared storage: ../x, /abs, control characters",
    keeps="everything outside the folder of the result",
    says="<folder>: the name '<name>' is absolute or has an empty part, . or .. in it",
    then="takes the result once the storage is put right",
)
def test_planted_names_lead_nowhere(bucket, tmp_path):
    assert len(NAMES) >= 45
    for name in NAMES:
        plant(f"{bucket}/jobs/j/result.json", result({"good": 1, name: 1}))
        plant(f"{bucket}/jobs/j/out/good", "1")
        line = refused(lambda: storage.collect(f"{bucket}/jobs/j", tmp_path / "target"), tmp_path)
        assert "the name" in line
        assert not (tmp_path / "target/good").exists(), "looked at before anything is written"


@fault(
    "Somebody plants names in the list of an input that a node fetches",
    keeps="everything outside the node's cache",
    says="<folder>: the name '<name>' is absolute or has an empty part, . or .. in it",
    then="fetches the input once its list is put right",
)
def test_planted_names_of_inputs_lead_nowhere(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "target"))
    place = f"memory://{uuid.uuid4().hex}"
    key = hashlib.sha256(b"x").hexdigest()
    for name in NAMES:
        plant(f"{place}/inputs/{key}.json", json.dumps({name: 1}))
        assert "the name" in refused(lambda: storage.fetch(f"{place}/inputs/{key}"), tmp_path)
    for name in (f"{key}/../../x", "../../x", "x" * 64, key[:-1]):
        refused(lambda name=name: storage.fetch(f"{place}/inputs/{name}"), tmp_path)


@fault(
    "A list on the shared storage announces sizes that are none, or more than the disk has",
    keeps="the disk",
    says="<file>: is not the file of <size> bytes that was announced",
)
def test_announced_sizes_are_not_believed(bucket, tmp_path):
    plant(f"{bucket}/jobs/j/out/a", "123")
    for size in SIZES:
        plant(f"{bucket}/jobs/j/result.json", result({"a": size}))
        line = refused(lambda: storage.collect(f"{bucket}/jobs/j", tmp_path / "target"), tmp_path)
        assert "announced" in line
    plant(f"{bucket}/jobs/j/result.json", result({"a": 3, "a/b": 3}))
    refused(lambda: storage.collect(f"{bucket}/jobs/j", tmp_path / "target"), tmp_path)


@fault(
    "A list on the shared storage is no JSON, nested without end, or huge",
    keeps="memory and time",
    says="<file>: is no JSON object",
)
def test_lists_that_are_none(bucket, tmp_path):
    for text in TEXTS:
        plant(f"{bucket}/jobs/j/result.json", text)
        plant(f"{bucket}/jobs/j/out/a", "1")
        refused(lambda: storage.collect(f"{bucket}/jobs/j", tmp_path / "target"), tmp_path)


@fault(
    "A link, a pipe or a huge empty file is planted on a mounted storage",
    keeps="what the link points to; nothing waits for the pipe",
    says="<file>: is not the file of <size> bytes that was announced",
)
def test_links_pipes_and_sparse_files(tmp_path):
    folder = tmp_path / "mount/jobs/j"
    (folder / "out").mkdir(parents=True)
    (tmp_path / "secret").write_text("123")
    (folder / "out/link").symlink_to(tmp_path / "secret")
    (folder / "out/folder").symlink_to(tmp_path)
    os.mkfifo(folder / "out/pipe")
    with (folder / "out/huge").open("wb") as file:
        file.truncate(2**43)
    for name, size in {"link": 3, "folder/secret": 3, "pipe": 0, "huge": 2**43}.items():
        plant(f"{folder}/result.json", result({name: size}))
        refused(lambda: storage.collect(str(folder), tmp_path / "target"), tmp_path)
        assert not (tmp_path / "target" / name).exists()
    (folder / "result.json").unlink()
    os.mkfifo(folder / "result.json")
    refused(lambda: storage.collect(str(folder), tmp_path / "target"), tmp_path)


JOB = StageJob(stage="train", params={"train": {}}, inputs={}, outside={}, code="0", logger=None)


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": {"../x": "memory://b/inputs/0"}},
        {"outside": {"../x": "memory://b/inputs/0"}},
        {"params": {"train": {"steps": 1}}},
        {"code": "1"},
        {"stage": "os"},
        {"more": 1},
        {"inputs": []},
        {"params": None},
    ],
)
@fault(
    "Somebody changes the description of a job on the shared storage",
    keeps="the node: nothing of it is done",
    says="<job.json>: is not what was submitted; somebody has changed it",
)
def test_a_description_that_was_changed_is_refused(tmp_path, changes):
    uri = f"memory://{uuid.uuid4().hex}/jobs/{JOB.name}/job.json"
    plant(uri, json.dumps(dataclasses.asdict(JOB) | changes))
    line = refused(lambda: remote._arrive("train", uri, tmp_path / "target"), tmp_path)
    assert "is not what was submitted; somebody has changed it" in line
    plant(uri, json.dumps(dataclasses.asdict(JOB)))
    assert remote._arrive("train", uri, tmp_path / "target") == JOB


def test_sweeping_leaves_alone_what_is_not_ours(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(remains, "REMAINS_S", -1.0)
    ours, others = f"adapt-train-{'0' * 16}", ["mine", "adapt-train-x", "adapt-train-" + "0" * 17]
    for name in [ours, *others]:
        plant(f"{bucket}/jobs/{name}/job.json", "{}")
    if not bucket.startswith("memory"):
        (tmp_path / "kept").mkdir()
        (tmp_path / "kept/mine").write_text("1")
        Path(f"{bucket}/jobs/adapt-train-{'1' * 16}").symlink_to(tmp_path / "kept")
    remains.sweep(bucket, "adapt-train-now")
    left = set(storage.folders(f"{bucket}/jobs"))
    assert ours not in left and left >= set(others)
    assert bucket.startswith("memory") or (tmp_path / "kept/mine").exists()


def test_marks_of_followers_that_are_planted_do_no_more_than_keep_a_job(bucket):
    mine = Follower(f"{bucket}/jobs/j")
    assert mine.is_alone()
    other = Follower(f"{bucket}/jobs/j")
    other.beat()
    assert not mine.is_alone() and not other.is_alone()
    other.leave()
    assert mine.is_alone()
    for number in range(50):
        plant(f"{bucket}/jobs/j/followers/{number}", "[" * 1000)
    assert not mine.is_alone()
