"""A registry that lies: names that lead elsewhere, links, pipes, sizes, numbers, silence, garbage.

Nothing is written outside the folder that is being filled, the folder keeps what it had, nothing
waits for long, and each ends in one line.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from adapt.params import InputError
from adapt.registry import contents, fetching
from adapt.registry.download import download
from tests.support import hostile_registry
from tests.support.faults import fault
from tests.support.hostile_registry import ARTIFACTS, Registry

SOURCE = "models:/adapt@champion"
GOOD = {"model.safetensors": b"weights", "config.json": b"{}"}
NAMES = [
    *(
        "../x.json",
        "../../x.json",
        "a/../../x.json",
        "/x.json",
        "//x.json",
        "./x.json",
        "a//x.json",
    ),
    *("..", ".", "", "/", "../", "a/..", "~/x.json", "%2e%2e/x.json", "..%2fx.json", "..\\x.json"),
    *("a\\b.json", "C:\\x.json", "a\0b.json", "a\x1b[2Jb.json", "a\rb.json", "\u202ex.json"),
    *("a/b.json", "a" * 300 + ".json", "a/" * 50 + "x.json", "x.json/", "\ud800.json", "é" * 200),
    *("x.py", "x.PY", "run.sh", "x.so", "x.pyc", "x.ipynb", "x.bin", "x.pt", "x.PKL", "x.joblib"),
    *(".x.json", ".git/config", "x.gguf", "x", "x.html", "x.exe", "x.yaml", "x.yml"),
    *("mlmodel", "MLmodel.yaml", "a/MLmodel", "conda.yml", "a/conda.yaml", "python_env.YAML"),
    *("registered_model_meta.yaml", "serving", "serving/x.txt", "serving/a/x.jinja"),
    *("file:///etc/passwd", "http://host/x.json", "\n.json\n", "x.json\u2028.py", "-rf.py"),
]
ORIGINS = [
    *(
        "file:///",
        "/",
        "file:///etc",
        "/etc",
        "file:///proc/self",
        "/dev",
        "/absent",
        "file:relative",
    ),
    *("http://127.0.0.1:9/api/2.0/mlflow-artifacts/artifacts/m", "https://host/m", "dbfs:/m"),
    *("mlflow-artifacts://127.0.0.1:9/m", "runs:/abc/m", "models:/other@champion", "ftp://host/m"),
    *("sftp://host/m", "nonsense://m", "nonsense", "", "\x1b[2J", "file:///a\0b"),
]
ANSWERS = [b"not json", b"[]", b"{}", b"7", b"\xff", b"", b"[" * 100_000, b'{"files": 7}']
ANSWERS += [
    b'{"files": [{}]}',
    b'{"files": [7]}',
    b'{"model_version": 7}',
    b'{"artifact_uri": [7]}',
]
ANSWERS += [b'{"files": [{"path": 7, "is_dir": false, "file_size": 1}]}']
ANSWERS += [b'{"files": [{"path": "x.json", "is_dir": "no", "file_size": "many"}]}']
VERSIONS = ["../../x", "", "-1", "1; rm", "1\n2", "\x1b[2J", "1.5", {"a": 1}]
ALIAS = "/api/2.0/mlflow/registered-models/alias"
LONGEST_S = 30.0  # that anybody waits for what somebody has planted
PLANTED = len(NAMES) + len(ORIGINS) + 4 * len(ANSWERS) + len(VERSIONS)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Registry]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.chdir(tmp_path)
    with hostile_registry.registry() as answers:
        answers.holds(GOOD)
        yield answers


def folder(tmp_path: Path) -> Path:
    """A workspace whose results hold a model of an earlier time."""
    (tmp_path / "results" / "model").mkdir(parents=True)
    (tmp_path / "results" / "model" / "model.safetensors").write_text("earlier")
    return tmp_path / "results" / "model"


def refused(server: Registry, to: Path) -> str:
    """What is said of a download that must fail; nothing but the target's parent was touched."""
    started = time.monotonic()
    with pytest.raises(InputError) as caught:
        download(MlflowClient(server.uri), SOURCE, to)
    message = str(caught.value)
    assert message.startswith(f"{SOURCE}: ") and message.isprintable() and len(message) < 700
    assert time.monotonic() - started < LONGEST_S
    left = sorted(path.relative_to(to.parents[1]).as_posix() for path in to.parents[1].rglob("*"))
    assert left == ["results", "results/model", "results/model/model.safetensors"]
    assert (to / "model.safetensors").read_text() == "earlier"
    return message


@fault(
    "a registry lists files with names that lead out of the folder, run, or hide",
    keeps="everything outside the folder, and the model that was there",
    says="models:/adapt@champion: the registered model: x.py is code; a version holds none",
    then="is refused the same way until the version is deleted or the alias moved",
)
def test_names_of_a_registry(server: Registry, tmp_path: Path) -> None:
    to = folder(tmp_path)
    for name in NAMES:
        server.holds(GOOD)
        server.files[""].append({"path": name, "is_dir": False, "file_size": 1})
        refused(server, to)


@fault(
    "a registry says that a model's files lie on another server, or anywhere on this machine",
    keeps="the tracking server's password, which is not sent to the other server",
    says="models:/adapt@champion: ... its files are said to lie at https://host, on another server",
)
def test_places_of_a_registry(server: Registry, tmp_path: Path) -> None:
    to = folder(tmp_path)
    for origin in ORIGINS:
        server.origin = origin
        refused(server, to)


@fault(
    "a registry answers with what is no JSON, or with something else than was asked for",
    keeps="the model that was there",
    says="models:/adapt@champion: the registry http://... does not give it: ...",
)
def test_answers_of_a_registry(server: Registry, tmp_path: Path) -> None:
    to = folder(tmp_path)
    for path in (ALIAS, "/api/2.0/mlflow/registered-models/get", ARTIFACTS):
        for answer in ANSWERS:
            server.raw = (
                {ALIAS: b'{"error_code": "X"}', path: answer} if "get" in path else {path: answer}
            )
            refused(server, to)
    server.raw = {}
    for answer in ANSWERS:
        server.raw = {"/api/2.0/mlflow/model-versions/get-download-uri": answer}
        refused(server, to)
    server.raw = {}
    for version in VERSIONS:
        server.version = version
        refused(server, to)


@fault(
    "a registry sends more or less than it said, without an end, or stops sending",
    keeps="the disk, and the model that was there",
    says="models:/adapt@champion: ... model.safetensors has 8 bytes where the server said 7",
)
def test_sizes_of_a_registry(
    server: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = folder(tmp_path)
    monkeypatch.setattr(fetching, "STALL_S", 0.5)
    for size, problem in ((6, "7 bytes where"), (9, "7 bytes where"), (1 << 60, "make room")):
        server.holds(GOOD)
        server.files[""][0]["file_size"] = size
        assert problem in refused(server, to)
    server.files[""][0].pop("file_size")
    assert "does not say how large" in refused(server, to)
    server.holds(GOOD)
    server.endless = {"model.safetensors"}
    assert "8 bytes where the server said 7" in refused(server, to)
    server.endless, server.silent = set(), {"model.safetensors"}
    server.files[""][0]["file_size"] = 9
    assert "timed out" in refused(server, to).lower()


def test_numbers_of_a_registry(server: Registry, tmp_path: Path) -> None:
    to = folder(tmp_path)
    server.holds({f"{number}.json": b"" for number in range(contents.MOST_FILES + 1)})
    assert f"more than {contents.MOST_FILES} files" in refused(server, to)
    server.holds(GOOD)
    above = ""
    for _ in range(contents.DEEPEST + 2):  # a folder in itself
        server.files.setdefault(above, []).append({"path": "d", "is_dir": True})
        above = f"{above}/d".strip("/")
    assert f"more than {contents.DEEPEST} deep" in refused(server, to)


GOOD_MLMODEL = """flavors:
  python_function:
    config: {policy: flag}
    env: {conda: conda.yaml, virtualenv: python_env.yaml}
    loader_module: adapt.serving.loader_module
    python_version: 3.11.7
mlflow_version: 3.17.2
"""
FLAVOUR = "flavors: {python_function: {loader_module: adapt.serving.loader_module, %s}}"
HOSTILE_MLMODELS = {
    "names os as what is imported": GOOD_MLMODEL.replace("adapt.serving.loader_module", "os"),
    "names None as": "flavors: {python_function: {}}",
    "has code, which": FLAVOUR % "code: code",
    "has python_model, which": FLAVOUR % "python_model: python_model.pkl",
    "has model_code_path, which": FLAVOUR % "model_code_path: run.json",
    "files of an environment": FLAVOUR % "env: {conda: ../../x.yaml}",
    "expected one flavour": "flavors: {sklearn: {pickled_model: model.json}}",
    "flavour, python_function": "flavors: [7]",
    "has aliases": "a: &a [x, x]\nflavors: {python_function: *a}",
    "not YAML": "!!python/object/apply:os.system ['true']",
    "expected a mapping": "[]",
    "not YAML that": "[" * 10_000,
    "larger than": "#" * (1 << 15),
    "that can be read": "\x00",
}


@fault(
    "the MLmodel of a registered version names a module, a pickle or a file that MLflow would run",
    keeps="the model that was there; nothing of the version is imported or unpickled",
    says="models:/adapt@champion: .../MLmodel: names os as what is imported, not adapt.serving....",
    then="is refused the same way until the version is deleted or the alias moved",
)
def test_an_mlmodel_that_runs_something_is_refused(server: Registry, tmp_path: Path) -> None:
    to = folder(tmp_path)
    for problem, text in HOSTILE_MLMODELS.items():
        server.holds({**GOOD, "MLmodel": text.encode()})
        assert problem in refused(server, to), text[:80]
    server.holds({**GOOD, "MLmodel": b"\xff\xfe"})
    assert "not YAML" in refused(server, to)


def test_a_whole_version_is_fetched_and_its_serving_folder_is_no_model(
    server: Registry, tmp_path: Path
) -> None:
    whole = {name: b"{}" for name in ("conda.yaml", "python_env.yaml", "registered_model_meta")}
    server.holds({**GOOD, **whole, "MLmodel": GOOD_MLMODEL.encode(), "README.md": b"a card"})
    server.files[""].append({"path": "serving", "is_dir": True})
    served = {"serving/serving.json": b"{}", "serving/debias.safetensors": b"masks"}
    sizes = [
        {"path": name.partition("/")[2], "is_dir": False, "file_size": len(content)}
        for name, content in served.items()
    ]
    server.files["serving"], server.contents = sizes, {**server.contents, **served}
    assert download(MlflowClient(server.uri), SOURCE, tmp_path / "whole")[1] == "1"
    with pytest.raises(InputError, match="no weights"):
        contents.check_names("a version", served)


def test_what_is_well_is_fetched(server: Registry, tmp_path: Path) -> None:
    to = folder(tmp_path)
    server.files[""].append({"path": "tokenizer", "is_dir": True})
    server.files["tokenizer"] = [{"path": "x.json", "is_dir": False, "file_size": 2}]
    server.contents["tokenizer/x.json"] = b"{}"
    assert download(MlflowClient(server.uri), SOURCE, to) == (to, "1")
    names = sorted(path.relative_to(to).as_posix() for path in to.rglob("*") if path.is_file())
    assert names == ["config.json", "model.safetensors", "tokenizer/x.json"]


def test_links_and_pipes_of_a_folder_are_not_followed(server: Registry, tmp_path: Path) -> None:
    model = tmp_path / "outside"
    for name, plant in {
        "secret.json": lambda path: path.symlink_to("/etc/passwd"),
        "more": lambda path: path.symlink_to(tmp_path),
        "round.json": lambda path: path.symlink_to(path),
        "nothing.json": lambda path: path.symlink_to(tmp_path / "absent"),
        "pipe.safetensors": lambda path: os.mkfifo(path),
        "null.json": lambda path: path.symlink_to("/dev/zero"),
    }.items():
        model.mkdir()
        (model / "model.safetensors").write_text("w")
        plant(model / name)
        server.origin = f"file://{model}"
        with pytest.raises(InputError, match=name):
            download(MlflowClient(server.uri), SOURCE, tmp_path / "to")
        assert not (tmp_path / "to").exists() and not (tmp_path / ".to.parts").exists()
        for path in model.iterdir():
            path.unlink()
        model.rmdir()


def test_how_much_is_planted() -> None:
    assert PLANTED > 100
