"""Sources: which files count, pictures by name that never leave the folder, and fingerprints."""

import base64
import io
import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from datasets import Dataset, DatasetDict

from adapt.data.readers import picture_names
from adapt.data.readers.record import OutOfReach, Unreadable
from adapt.data.readers.remote import Remote, without_secrets
from adapt.data.sources import Source
from adapt.params import InputError, shown
from tests.support.hub import COMMIT, hub

ROWS = [{"question": "?", "image": "a.jpg"}, {"question": "!", "image": "b.jpg"}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def plant(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


@pytest.fixture
def folder(tmp_path):
    """A source with a picture in every place where one is looked for, and one outside."""
    return plant(
        tmp_path / "source",
        {
            "data/train.jsonl": LINES,
            "data/beside.jpg": b"beside",
            "data/images/folder.jpg": b"folder beside",
            "top.jpg": b"top",
            "images/top-folder.jpg": b"folder of the source",
            "../outside.jpg": b"outside",
            "../media/dog.jpg": b"named folder",
        },
    )


def names(source: Source) -> list[str]:
    return [file.name for file in source.files()]


def values(source: Source) -> list[object]:
    return [record.values for file in source.files() for record in file.records()]


# ---- files -------------------------------------------------------------------------------------


def test_files_of_rows_count_in_a_folder_and_in_each_folder_in_it(tmp_path):
    wanted = ["a.jsonl", "b.JSON", "data/c.csv", "data/d.tsv", "data/train.ndjson"]
    others = ["README.md", ".hidden.jsonl", ".git/x.json", "data/deep/x.json", "dataset_info.json"]
    plant(tmp_path, dict.fromkeys([*wanted, *others, "vocabulary.json", "images/1.jpg"], ""))
    assert names(Source.open(".", tmp_path)) == wanted


def test_one_file_is_a_source_of_its_folder(folder):
    source = Source.open("source/data/train.jsonl", folder.parent)
    assert names(source) == ["train.jsonl"] and values(source) == ROWS
    assert source.picture("beside.jpg", "train.jsonl") == b"beside"
    with pytest.raises(Unreadable, match="leads out of the source's folder"):
        source.picture("../top.jpg", "train.jsonl")


def test_a_saved_data_set_is_read_from_the_files_that_it_names(tmp_path):
    saved = {"train": Dataset.from_list(ROWS), "test": Dataset.from_list(ROWS[:1])}
    DatasetDict(saved).save_to_disk(str(tmp_path / "saved"))
    plant(tmp_path, {"saved/train/cache-0.arrow": "left by a map"})
    source = Source.open("saved", tmp_path)
    stem = "data-00000-of-00001.arrow"
    assert names(source) == [f"test/{stem}", f"train/{stem}"]
    assert values(source) == [*ROWS[:1], *ROWS]
    assert source.described("dataset_dict.json") == {"splits": ["train", "test"]}


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("nowhere", "nowhere: not found"),
        ("nowhere\x1b[2J\n", r"nowhere\\x1b\[2J\\n: not found"),
        ("empty", "empty: no file in it ends in .parquet"),
        ("pipe", "pipe: is no regular file or folder"),
        ("a" * 5000, "aaa: File name too long"),
        ("a\0b", r"a\\x00b: not found"),
        ("~nobody-of-this-name/x", "~nobody-of-this-name/x: there is no such user"),
        ("https://host/rows.json", "https://...: is not read; a source is a folder, a file, hf:"),
        ("ftp://me:word@host/x", "ftp://...: is not read"),
        ("s3://key:word@bucket/x", "s3://...: the address holds more than a bucket"),
        ("hf:owner", "hf:owner: expected hf:owner/name or hf:owner/name@revision"),
        ("hf:../../etc", r"hf:../../etc: expected hf:owner/name"),
    ],
)
def test_places_that_are_none(tmp_path, place, reason):
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=reason) as refused:
        Source.open(place, tmp_path)
    assert "word" not in str(refused.value) and str(refused.value).isprintable()


def test_a_pipe_among_the_files_is_not_waited_for(folder):
    os.mkfifo(folder / "data/pipe.jsonl")
    assert names(Source.open("source", folder.parent)) == ["data/train.jsonl"]


def test_a_file_that_is_a_link_out_of_the_folder_is_refused(folder):
    (folder / "secret.json").symlink_to("/etc/passwd")
    with pytest.raises(InputError, match=r"secret.json: leads out of the folder"):
        Source.open("source", folder.parent)


def test_a_file_whose_name_is_no_text_is_refused(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.jsonl")).write_text(LINES)
    with pytest.raises(InputError, match="its name is not UTF-8; rename it") as refused:
        Source.open(".", tmp_path)
    assert str(refused.value).isprintable()


def test_links_of_a_hub_cache_are_files(tmp_path):
    plant(tmp_path, {"blobs/1234": LINES, "snapshots/abc/README.md": ""})
    (tmp_path / "snapshots/abc/train.jsonl").symlink_to("../../blobs/1234")
    assert values(Source.open("snapshots/abc", tmp_path)) == ROWS


def test_a_description_that_is_no_json_is_named(tmp_path):
    plant(tmp_path, {"a.jsonl": LINES, "dataset_info.json": "{"})
    source = Source.open(".", tmp_path)
    assert source.described("meta.json") is None
    with pytest.raises(InputError, match=r"dataset_info.json: is no JSON"):
        source.described("dataset_info.json")


# ---- pictures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("beside.jpg", b"beside"),
        ("./beside.jpg", b"beside"),
        ("folder.jpg", b"folder beside"),
        ("images/folder.jpg", b"folder beside"),
        ("top.jpg", b"top"),
        ("../top.jpg", b"top"),
        ("top-folder.jpg", b"folder of the source"),
        ("data/beside.jpg", b"beside"),
        ("data:image/png;base64," + base64.b64encode(b"within").decode(), b"within"),
    ],
)
def test_pictures_are_found_in_the_stated_places(folder, name, content):
    source = pickle.loads(pickle.dumps(Source.open("source", folder.parent)))
    assert source.picture(name, "data/train.jsonl") == content


def test_an_absolute_path_into_the_source_is_inside(folder):
    source = Source.open("source", folder.parent)
    assert source.picture(str(folder.resolve() / "top.jpg"), "data/train.jsonl") == b"top"


def test_the_folder_that_is_named_comes_first(folder):
    source = Source.open("source", folder.parent, pictures="media")
    assert source.picture("dog.jpg", "data/train.jsonl") == b"named folder"
    assert source.picture("beside.jpg", "data/train.jsonl") == b"beside"
    plant(folder.parent, {"media/top.jpg": b"other top"})
    assert source.picture("top.jpg", "data/train.jsonl") == b"other top"
    with pytest.raises(InputError, match=r"data.pictures: nowhere: not found"):
        Source.open("source", folder.parent, pictures="nowhere")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../../outside.jpg", "leads out of the source's folder"),
        ("../../../../../../etc/passwd", "leads out of the source's folder"),
        ("/etc/passwd", "leads out of the source's folder"),
        ("//etc/passwd", "leads out of the source's folder"),
        ("link.jpg", "leads out of the source's folder"),
        ("linked/outside.jpg", "leads out of the source's folder"),
        ("loop.jpg", "cannot be read"),
        ("pipe.jpg", "cannot be read (is no regular file)"),
        ("images", "cannot be read (is no regular file)"),
        ("http://host/a.jpg", "is an address; pictures are not fetched"),
        ("HTTPS://host/a.jpg", "is an address"),
        ("file:///etc/passwd", "is an address"),
        ("file:a.jpg", "is an address"),
        ("ftp://host/a.jpg", "is an address"),
        ("gopher://host/a.jpg", "is an address"),
        ("C:\\pictures\\a.jpg", "is a path of Windows"),
        ("C:/pictures/a.jpg", "is a path of Windows"),
        ("..\\top.jpg", "is a path of Windows"),
        ("top.jpg\0.png", "has a control character"),
        ("top.jpg\n", "has a control character"),
        ("\x1b[2Jtop.jpg", "has a control character"),
        ("\ud800.jpg", "has a control character"),
        ("", "is empty"),
        ("  ", "is empty"),
        ("a" * 5000, "has 5000 characters, too many for a name"),
        ("a" * 300, "is not there"),
        ("Beside.JPG", "is not there; did you mean 'beside.jpg'?"),
        ("besides.jpg", "is not there; did you mean 'beside.jpg'?"),
        ("elsewhere/x.jpg", "is not there; data.pictures names its folder"),
        ("beside.jpg/x.jpg", "is not there"),
        ("data:image/png;base64,@@@@", "is no base64"),
        ("data:image/png,%89PNG", "is no picture in base64"),
        ("data:text", "is no picture in base64"),
    ],
)
def test_names_that_are_refused(folder, name, reason):
    (folder / "data/link.jpg").symlink_to(folder.parent / "outside.jpg")
    (folder / "data/linked").symlink_to(folder.parent)
    (folder / "data/loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(folder / "data/pipe.jpg")
    source = Source.open("source", folder.parent)
    with pytest.raises(Unreadable) as refused:
        source.picture(name, "data/train.jsonl")
    message = str(refused.value)
    assert reason in message and message.isprintable() and len(message) < 200


def test_a_link_that_stays_inside_is_followed(folder):
    (folder / "data/link.jpg").symlink_to("../top.jpg")
    assert Source.open("source", folder.parent).picture("link.jpg", "data/train.jsonl") == b"top"


def test_accents_may_be_written_apart(folder):
    plant(folder, {"data/Scho\u0308n.jpg": b"apart", "data/na\u00efve.jpg": b"together"})
    source = Source.open("source", folder.parent)
    assert source.picture("Sch\u00f6n.jpg", "data/train.jsonl") == b"apart"
    assert source.picture("nai\u0308ve.jpg", "data/train.jsonl") == b"together"


def test_pictures_have_a_limit_of_bytes(folder, monkeypatch):
    monkeypatch.setattr(picture_names, "MAX_BYTES", 2**20)
    with (folder / "data/large.jpg").open("wb") as file:
        file.truncate(2**40)  # a terabyte that takes no room
    source = Source.open("source", folder.parent)
    inline = "data:image/png;base64," + "A" * 2**21
    for name in ("large.jpg", inline):
        with pytest.raises(Unreadable, match="has more than 1 MiB"):
            source.picture(name, "data/train.jsonl")


# ---- fingerprints ------------------------------------------------------------------------------


def test_a_fingerprint_changes_with_rows_and_pictures_and_nothing_else(folder, monkeypatch):
    def now(place: str = "source", pictures: str = "") -> str:
        return Source.open(place, folder.parent, pictures).fingerprint()

    seen = [now()]
    assert now() == seen[0]
    plant(folder, {"README.md": "text", ".cache/x.jsonl": "{}"})
    os.utime(folder / "top.jpg", ns=(1, 1))  # touched, not changed
    assert now() == seen[0]
    for name in ("data/train.jsonl", "top.jpg", "dataset_info.json", "images/deep/er/new.png"):
        before = (folder / name).read_bytes() if (folder / name).exists() else b""
        plant(folder, {name: before.replace(b"?", b"!").upper() + b" "})
        seen.append(now())
    (folder / "top.jpg").unlink()
    seen.append(now())
    seen.append(now(pictures="media"))
    plant(folder, {"../media/dog.jpg": "other"})
    seen.append(now(pictures="media"))
    assert len(set(seen)) == len(seen)


def test_a_replaced_file_of_equal_size_is_seen(folder):
    """The case own-data-not-tracked: test.parquet was replaced, and nothing was said."""
    source = Source.open("source", folder.parent)
    before = source.fingerprint()
    other = plant(folder.parent, {"new.jsonl": LINES.replace("?", "x")}) / "new.jsonl"
    times = (folder / "data/train.jsonl").stat()
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(folder / "data/train.jsonl")
    assert Source.open("source", folder.parent).fingerprint() != before


def test_a_fingerprint_reads_what_has_not_changed_only_once(folder, monkeypatch):
    first = Source.open("source", folder.parent).fingerprint()
    monkeypatch.setattr("hashlib.file_digest", None)
    assert Source.open("source", folder.parent).fingerprint() == first
    kept = folder.parent / ".state/data/digests.json"
    monkeypatch.undo()
    kept.write_text("damaged")
    assert Source.open("source", folder.parent).fingerprint() == first


def test_a_single_file_is_watched_with_the_pictures_that_its_rows_name(folder):
    rows = [{"images": ["photos/1.jpg"]}, {"messages": [{"image": "top.jpg"}]}]
    plant(folder, {"rows.json": json.dumps(rows), "photos/1.jpg": "1", "others/2.jpg": "2"})

    def now() -> str:
        return Source.open("source/rows.json", folder.parent).fingerprint()

    seen = [now()]
    plant(folder, {"others/2.jpg": "x", "data/train.jsonl": ""})
    assert now() == seen[0]
    for name in ("photos/1.jpg", "top.jpg", "images/new.jpg", "rows.json"):
        plant(folder, {name: json.dumps(rows[::-1]) + name})
        seen.append(now())
    assert len(set(seen)) == 5


# ---- object storage and the hub ----------------------------------------------------------------


@pytest.fixture
def storage():
    """A folder of fsspec's storage in memory, which is opened as s3:// is."""
    files = fsspec.filesystem("memory")
    contents = {"data/train.jsonl": LINES.encode(), "images/a.jpg": b"a", "data/.x.json": b""}
    for name, content in contents.items():
        files.pipe(f"/bucket/prefix/{name}", content)
    yield files
    files.rm("/bucket", recursive=True)


def test_object_storage_is_read_in_place(storage, tmp_path):
    source = Source.open("memory://bucket/prefix/", tmp_path)
    assert names(source) == ["data/train.jsonl"] and values(source) == ROWS
    chunks = [pickle.loads(pickle.dumps(one)) for file in source.files() for one in file.chunks()]
    assert [record.values for one in chunks for record in one.records()] == ROWS
    assert source.picture("a.jpg", "data/train.jsonl") == b"a"
    for name in ("../../../other", "/etc/passwd", "nix.jpg", "images"):
        with pytest.raises(Unreadable, match=r"leads out|is not there"):
            source.picture(name, "data/train.jsonl")
    single = Source.open("memory://bucket/prefix/data/train.jsonl", tmp_path)
    assert values(single) == ROWS and source.described("meta.json") is None


def test_object_storage_is_watched_by_its_marks(storage, tmp_path):
    before = Source.open("memory://bucket/prefix", tmp_path).fingerprint()
    assert Source.open("memory://bucket/prefix", tmp_path).fingerprint() == before
    storage.pipe("/bucket/prefix/images/a.jpg", b"other")
    assert Source.open("memory://bucket/prefix", tmp_path).fingerprint() != before


def test_object_storage_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(InputError, match="memory://bucket/none: not found, or empty"):
        Source.open("memory://bucket/none", tmp_path)
    with pytest.raises(InputError, match=r"none.jsonl: cannot be read"):
        Source.open("memory://bucket/none.jsonl", tmp_path)


def test_a_driver_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    with pytest.raises(InputError, match=r"s3://bucket/x: its driver is .*; pip install"):
        Source.open("s3://bucket/x", tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    with pytest.raises(InputError, match=r"gs://bucket/x: its driver is not installed; .*gcsfs"):
        Source.open("gs://bucket/x", tmp_path)


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Make `huggingface_hub` ask at an address, with an empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))

    def at(address: str) -> None:
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)

    return at


FILES = {"README.md": b"", "data/train.jsonl": LINES.encode(), "images/a.jpg": b"a", "run.py": b""}


@pytest.mark.parametrize("revision", ["", "@main", f"@{COMMIT}"])
def test_a_data_set_of_the_hub_is_read_at_its_commit(tmp_path, ask, revision):
    with hub("team/pairs", FILES) as (address, asked):
        ask(address)
        source = Source.open(f"hf:team/pairs{revision}", tmp_path)
        assert source.revision == source.fingerprint() == COMMIT
        assert names(source) == ["data/train.jsonl"]
        (chunk,) = pickle.loads(pickle.dumps(list(source.files()[0].chunks())))
        assert [record.values for record in chunk.records()] == values(source) == ROWS
        assert source.picture("a.jpg", "data/train.jsonl") == b"a"
        with pytest.raises(Unreadable, match=r"'b.jpg' is not there"):
            source.picture("b.jpg", "data/train.jsonl")
    assert not any("run.py" in request for request in asked)


def test_what_was_downloaded_is_read_without_the_hub(tmp_path, ask):
    from huggingface_hub import snapshot_download

    with hub("team/pairs", FILES) as (address, _):
        ask(address)
        snapshot_download("team/pairs", repo_type="dataset")
    source = Source.open("hf:team/pairs", tmp_path)
    assert source.revision == COMMIT and values(source) == ROWS
    assert source.picture("a.jpg", "data/train.jsonl") == b"a"


@pytest.mark.parametrize("name", ["hf:team/pairs", "hf:team/pairs@main"])
def test_a_hub_out_of_reach_is_one_line(tmp_path, ask, name):
    ask("http://127.0.0.1:9")
    with pytest.raises(InputError, match="hf:team/pairs: cannot be read") as refused:
        Source.open(name, tmp_path)
    assert str(refused.value).isprintable()


def test_offline_is_one_line(tmp_path, ask, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="hf:team/pairs: cannot be read"):
        Source.open("hf:team/pairs", tmp_path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("hf:team/other", "the hub has no such data set; if it is private, log in"),
        ("hf:team/gated", "is gated; accept its terms on its page and log in"),
        ("hf:team/pairs@none", "the data set has no such branch, tag or commit"),
        ("hf:team/a..b", "Cannot have -- or .. in repo_id"),
    ],
)
def test_what_the_hub_refuses_is_one_line(tmp_path, ask, name, reason):
    with hub("team/pairs", FILES) as (address, _):
        ask(address)
        with pytest.raises(InputError, match=f"{name}: {reason}") as refused:
            Source.open(name, tmp_path)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet", "arrow"])
@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset by peer"), TimeoutError()])
def test_a_network_that_fails_is_no_fault_of_a_row(tmp_path, monkeypatch, ending, error):
    rows = Dataset.from_list([{"text": os.urandom(20).hex()} for _ in range(4000)])
    path = str(tmp_path / f"rows.{ending}")
    if ending == "arrow":
        rows.save_to_disk(str(tmp_path / "saved"))
        path = str(next((tmp_path / "saved").glob("*.arrow")))
    else:
        writers = {"parquet": rows.to_parquet, "csv": rows.to_csv}
        writers.get(ending, rows.to_json)(path)
    with fsspec.filesystem("memory").open(f"/bucket/rows.{ending}", "wb") as file:
        file.write(Path(path).read_bytes())
    source = Source.open(f"memory://bucket/rows.{ending}", tmp_path)
    assert len(values(source)) == 4000
    reads = iter([error])
    monkeypatch.setattr(f"{Remote.__module__}.Remote.open", lambda *_: Failing(path, reads))
    with pytest.raises(OutOfReach, match=f"rows.{ending}: cannot be read"):
        values(source)
    monkeypatch.undo()
    monkeypatch.setattr(type(fsspec.filesystem("memory")), "info", Failing.info)
    with pytest.raises(OutOfReach, match=r"a.jpg: cannot be read"):
        source.picture("a.jpg", "rows.json")


class Failing(io.FileIO):
    """A file whose middle cannot be read."""

    def __init__(self, path: str, errors: Iterator[OSError]) -> None:
        super().__init__(path)
        self.errors = errors

    @staticmethod
    def info(*_, **__):
        raise ConnectionResetError(104, "reset by peer")

    def readinto(self, buffer):
        if self.tell() > 3000:
            raise next(self.errors)
        return super().readinto(buffer)

    def read(self, size=-1):
        if self.tell() > 3000 or size > 3000:
            raise next(self.errors)
        return super().read(size)


def test_secrets_stay_out_of_messages(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    error = OSError("key hush: https://host/x?X-Amz-Signature=ab&part=1 failed\nmore")
    assert without_secrets(error) == "key ***: https://host/x failed"


def test_values_in_messages_are_short_and_printable():
    deep: list[object] = []
    for _ in range(10_000):
        deep = [deep]
    for value in ("x" * 10**6, b"\x1b" * 100, deep, 10**10_000, "\x1b]0;\u202e\n", {"a": deep}):
        assert len(shown(value)) < 70 and shown(value).isprintable()
