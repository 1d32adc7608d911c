"""COCO's file names, AMBER's, floats and zeros: an id that the truth lists, or no id."""

from pathlib import Path

import pytest

from adapt.score.ids import Ids, id_of
from tests.support import oracle, scoring
from tests.support.scoring import run, written

NAME = "COCO_val2014_000000000042.jpg"


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of benchmark data."""
    return scoring.shared(monkeypatch)


@pytest.mark.parametrize(
    "spelling",
    ["42", "042", "000000000042", "42.0", NAME, f"val2014/{NAME}", f"C:\\coco\\{NAME}", NAME[13:]],
)
def test_spellings_of_a_coco_image(spelling: str) -> None:
    assert Ids(["42", "43"]).find(str(id_of(spelling))) == {"42"}
    assert Ids([NAME, NAME.replace("42", "43")]).find(str(id_of(spelling))) == {NAME}


def test_what_the_truth_lists_goes_before_what_is_alike() -> None:
    # A file of that name and an image of that number are two images.
    ids = Ids(["42", "7"], [("42.jpg", "7"), ("000000000042.jpg", "7")])
    assert [ids.find(name) for name in ("42", "42.jpg", "042")] == [{"42"}, {"7"}, {"42", "7"}]
    assert Ids(["a/1.jpg", "b/1.jpg"]).find("1.jpg") == {"a/1.jpg", "b/1.jpg"}
    assert Ids(["42"]).find("420") == Ids(["42"]).find("COCO_val2014_42.jpg") == set()


@pytest.mark.parametrize("value", [10**400, 2**53 + 1, "9007199254740993"])
def test_large_whole_numbers_stay_as_they_are(value: int | str) -> None:
    assert id_of(value) == str(value)


@pytest.mark.parametrize("value", [1e308, 2.0**60, float("inf"), float("nan"), None, True, b"1"])
def test_what_is_no_id(value: object) -> None:
    assert id_of(value) is None


def coco(folder: Path) -> Path:
    """COCO's two files, whose image 42 has a dog and whose image 7 has another's number as name."""
    images = [{"id": 42, "file_name": NAME}, {"id": 7, "file_name": "000000000043.jpg"}]
    images += [{"id": 43, "file_name": "x.jpg"}]
    notes = [{"image_id": 42, "category_id": 18}]
    categories = [{"id": 18, "name": "dog"}]
    instances = {"images": images, "categories": categories, "annotations": notes}
    written(folder / "instances_val2014.json", instances)
    captions = [{"image_id": 42, "caption": "A dog in a car."}]
    written(folder / "captions_val2014.json", {"images": images, "annotations": captions})
    return folder


@pytest.mark.parametrize("image", [42, 42.0, NAME, "000000000042", f"val2014/{NAME}"])
def test_captions_of_cocos_images(image: object, shared: Path, tmp_path: Path) -> None:
    caption = {"image_id": image, "caption": "A dog and a cat."}
    for benchmark, metric in {"chair": "chair_i", "objhal": "CHAIRi"}.items():
        answers = written(tmp_path / "answers.jsonl", [caption], lines=True)
        result = run(benchmark, "--responses", answers, "--truth", coco(tmp_path))
        assert result[metric] == 0.5 and result["notes"] == []


@pytest.mark.usefixtures("nltk_data")
def test_an_image_that_may_be_two_or_is_there_twice(tmp_path: Path) -> None:
    for images, problem in {
        ("0043",): "image_id '0043' may be '43', '7'; use the ids of",
        (42, NAME): f"row 2: image_id '{NAME}' is there already",
        ("44",): "image_id '44' is unknown",
    }.items():
        rows = [{"image_id": image, "caption": ""} for image in images]
        answers = written(tmp_path / "answers.json", rows)
        error = run("chair", "--responses", answers, "--truth", coco(tmp_path), code=2)["error"]
        assert problem in error


def test_ambers_ids(shared: Path, tmp_path: Path) -> None:
    cases = oracle.load("amber_generative.json")["cases"][:4]
    spelled = [str, float, "AMBER_{}.jpg".format, "image/AMBER_{}.jpg".format]
    rows, plain = (
        [
            {"id": spell(case["id"]), "response": case["response"]}
            for spell, case in zip(spells, cases, strict=True)
        ]
        for spells in (spelled, [int] * 4)
    )
    common = ["--truth", shared / "amber"]
    found = run("amber", "--responses", written(tmp_path / "a.json", rows), *common)
    assert found == run("amber", "--responses", written(tmp_path / "b.json", plain), *common)
    assert found["notes"] == ["1000 of 1004 descriptions have no response and are left out"]


def test_a_table_of_images_that_are_not_all_described(shared: Path, tmp_path: Path) -> None:
    truth = written(tmp_path / "truth.json", {"a.jpg": ["dog"], "b.jpg": []})
    answers = written(tmp_path / "answers.json", {"a.jpg": "A dog."})
    result = run("chair", "--responses", answers, "--truth", truth)
    assert result["chair_s"] == 0 and result["recall"] == 1
    assert result["notes"] == ["1 of 2 images have no caption and are left out"]
