"""Files outside of `results/` on their way to a job, and their names on the way back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapt.benchmarks import registry
from adapt.cluster import remote, storage
from adapt.cluster.luggage import Luggage
from adapt.data.outside import Outside
from adapt.generation import benched
from adapt.generation.outside import of_benchmarks
from adapt.generation.settings import Config
from adapt.params import InputError, as_params, load
from tests.stages.conftest import ANSWER
from tests.support import benchmark_folders as made
from tests.support import oracle


@pytest.fixture
def ws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "ws"
    root.mkdir()
    monkeypatch.chdir(root)
    oracle.use_nltk_data(monkeypatch)
    return root


def config(*benchmarks: dict[str, Any]) -> Config:
    content = as_params("answer", ANSWER)
    content["answer"]["benchmarks"] = list(benchmarks)
    return load(content, "answer", Config)


def travelled(asked: Config, root: Path, job: Path) -> tuple[Luggage, Config]:
    """What a job finds in its folder, and its settings."""
    luggage = Luggage("answer", of_benchmarks(asked))
    params = luggage.packed(as_params("answer", asked))
    outside = luggage.shared(str(root.parent / "exchange"))
    content = {"stage": "answer", "params": params, "inputs": {}, "outside": outside}
    described = remote.StageJob(**content, code="0", logger=None)
    assert str(root.parent) not in json.dumps(params)
    uri = f"{root.parent}/exchange/jobs/{described.name}/job.json"
    storage.write_json(uri, {**content, "code": "0", "logger": None})
    remote._arrive("answer", uri, job)
    return luggage, load(params, "answer", Config)


def contents(suites: list[Any]) -> list[Any]:
    return [[(one.id, one.question, [*one.images]) for one in suite.questions] for suite in suites]


@pytest.mark.parametrize("named", ["{}", "./{}", "../ws/{}", "{root}/{}"])
@pytest.mark.parametrize("name", made.MAKERS)
def test_a_benchmark_in_a_job_asks_what_it_asks_at_home(
    name: str, named: str, ws: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made.MAKERS[name](ws / name).relative_to(ws)
    written = named.replace("{root}", str(ws)).replace("{}", str(path))
    options: dict[str, Any] = {"objhal": {"truth": f"{name}/objects.json"}}.get(name, {})
    if name == "mmhal":
        options = {"verdicts": "verdicts/{arm}.json"}
        for arm in ("base", "base_steered", "tuned", "tuned_steered"):
            made.write(ws / f"verdicts/{arm}.json", ["Rating: 6", "Rating: 0"])
    asked = config({"name": name, "path": written, **options})
    before = [registry.read(one) for one in asked.benchmarks]
    want, job = contents(before), tmp_path / "job"
    luggage, sent = travelled(asked, ws, job)
    monkeypatch.chdir(job)
    after = benched.suites(sent, is_rehearsed=True)
    assert contents(after) == want
    assert [one.notes for one in after] == [one.notes for one in before]
    # What it writes of its work has the user's names again, as they are written.
    (tmp_path / "out").mkdir()
    said = {"read": [one.fingerprint for one in after], "settings": as_params("answer", sent)}
    (tmp_path / "out/benchmarks.json").write_text(json.dumps(said, indent=2))
    luggage.unpack(tmp_path / "out")
    back = json.loads((tmp_path / "out/benchmarks.json").read_text())
    assert back["read"] == [one.fingerprint for one in before]
    normal = lambda one: one | {"path": str(Path(one["path"]))}  # noqa: E731
    settings = as_params("answer", asked)["answer"]["benchmarks"]
    assert list(map(normal, back["settings"]["answer"]["benchmarks"])) == list(
        map(normal, settings)
    )


def test_only_pictures_that_are_asked_about_travel_and_only_once(
    ws: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two files of questions about the same pictures share them."""
    one = made.pope(ws / "POPE")
    other = one.with_name("coco_pope_popular.json")
    other.write_text(one.read_text().replace("snowboard", "chair"))
    made.draw(ws / "POPE/val2014", [f"COCO_val2014_{number}.jpg" for number in range(40)])
    both = [
        {"name": "pope", "label": label, "path": f"POPE/{file.name}", "images": "POPE/val2014"}
        for label, file in (("random", one), ("popular", other))
    ]
    travelled(config(*both), ws, tmp_path / "job")
    said = capsys.readouterr().out
    assert said.count("val2014: 2 files") == 2
    assert said.count("already on the storage") == 1
    assert len([*(tmp_path / "job").rglob("*.jpg")]) == 4


def test_a_file_of_questions_may_lie_among_the_pictures(
    ws: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = made.pope(ws / "POPE").rename(ws / "POPE/val2014/questions.json")
    path = str(file.relative_to(ws))
    asked = config({"name": "pope", "path": path, "images": "POPE/val2014"})
    want = contents([registry.read(one) for one in asked.benchmarks])
    _, sent = travelled(asked, ws, tmp_path / "job")
    monkeypatch.chdir(tmp_path / "job")
    assert contents(benched.suites(sent, is_rehearsed=True)) == want


def test_the_work_is_what_files_hold_and_not_where_they_lie(ws: Path, tmp_path: Path) -> None:
    jobs = tmp_path / "exchange/jobs"
    travelled(config({"name": "pope", "path": str(made.pope(ws / "a"))}), ws, tmp_path / "one")
    file = made.pope(tmp_path / "far/b")
    travelled(config({"name": "pope", "path": str(file)}), ws, tmp_path / "two")
    assert len([*jobs.iterdir()]) == 1, "the same work"
    (tmp_path / "far/b/val2014/COCO_val2014_000000000007.jpg").write_bytes(made.picture(5))
    travelled(config({"name": "pope", "path": str(file)}), ws, tmp_path / "three")
    assert len([*jobs.iterdir()]) == 2, "another picture"


def test_a_named_folder_of_which_nothing_is_read_is_there(
    ws: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Object HalBench has its pictures in its rows; the folder is asked for all the same."""
    made.objhal(ws / "objhal")
    (ws / "pictures").mkdir()
    options = {"truth": "objhal/objects.json", "images": "pictures/"}
    asked = config({"name": "objhal", "path": "objhal/obj_halbench.jsonl", **options})
    _, sent = travelled(asked, ws, tmp_path / "job")
    monkeypatch.chdir(tmp_path / "job")
    assert len(benched.suites(sent, is_rehearsed=True)[0].questions) == 2


def test_a_judges_key_stays_at_home() -> None:
    from adapt.stages import answer

    judge = {"url": "https://judge.example/v1", "model": "m", "key": "JUDGE_KEY"}
    asked = config({"name": "mmhal", "path": "m.json", "judge": judge})
    assert answer.at_home(asked).startswith("asks the judge of mmhal from this machine")
    assert answer.at_home(config({"name": "mmhal", "path": "m.json"})) == ""


def test_names_go_back_as_they_were_written() -> None:
    outside = [
        Outside(("a",), '/data/it\'s "x"/é.json', (Path('/data/it\'s "x"/é.json'),)),
        Outside(("b",), "own.parquet", (Path("own.parquet"),)),
        *(Outside(("c",), f"c/{number}/f", (Path(f"c/{number}/f"),)) for number in range(2, 12)),
    ]
    luggage = Luggage("answer", outside)
    back: Callable[[str], str] = luggage.unpacked
    assert back("outside-of-results/0/é.json: bad") == '/data/it\'s "x"/é.json: bad'
    assert back("in outside-of-results/1/own.parquet, row 3") == "in own.parquet, row 3"
    assert back("outside-of-results/11/f outside-of-results/2/f") == "c/11/f c/2/f"
    assert back("outside-of-results/99/f") == "outside-of-results/99/f"


def test_an_upload_that_broke_off_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"{number}.jpg": tmp_path / f"{number}.jpg" for number in range(5)}
    for number, path in enumerate(files.values()):
        path.write_bytes(b"%d" % number)
    # A mounted file system may have kept a size and lost what was written.
    left = {f"memory://{tmp_path.name}": ", 2 of them missing", str(tmp_path / "exchange"): ""}
    for exchange, begun in left.items():
        key = storage.digest(files)
        storage.upload(*_at(f"{exchange}/inputs/{key}", dict([*files.items()][:3])))
        uri = storage.put(files, "val2014", exchange)
        said = f"val2014: 5 files, 0.0 MB{begun}: uploading to"
        assert said in capsys.readouterr().out
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        assert storage.digest(storage.files_of(storage.fetch(uri))) == key
    storage.remove(f"memory://{tmp_path.name}")


def _at(uri: str, files: dict[str, Path]) -> tuple[Any, dict[str, Path], str]:
    fs, path = storage._open(uri)
    return fs, files, path


def test_a_file_that_is_not_there_is_told_at_home() -> None:
    from adapt.stages import pairs
    from tests.support.preferences import config as pairs_config

    keep = {"kinds": ["exists"], "images": 3, "path": "nothing.parquet"}
    with pytest.raises(InputError, match=r"nothing.parquet: there is no such file"):
        pairs.outside(pairs_config(keep=keep))
    assert pairs.outside(pairs_config()) == ()
