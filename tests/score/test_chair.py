"""CHAIR of free captions by hand, and equal to the two official codes: every caption, and the
published table.
"""

from pathlib import Path

import pytest

from adapt.params import InputError
from adapt.score.chair import OWN_LIST, Synonyms, Variant, mentions, read_synonyms, score
from adapt.score.scored import intervals, moved
from adapt.score.text.plurals import singular
from tests.support import oracle

pytestmark = pytest.mark.usefixtures("nltk_data")

VARIANTS: list[tuple[Variant, str]] = [("maxlinn", "maxlinn_pattern"), ("opera", "opera_nltk")]


def official() -> Synonyms:
    path = oracle.FOLDER.parent / "chair" / "synonyms.txt"
    if not path.is_file():
        pytest.skip(f"CHAIR's synonyms {path} are not on this machine")
    return read_synonyms(path)


@pytest.mark.parametrize(("variant", "key"), VARIANTS)
def test_every_official_caption(variant: Variant, key: str) -> None:
    file, synonyms = oracle.load("chair_handwritten.json"), official()
    for case in file["cases"]:
        expected = case["official"][key]
        found = mentions(case["caption"], synonyms, variant, "official")
        assert found == (
            expected["words"],
            expected["node_words"],
            len(expected["tokens_after_double_words"]),
        )
        metrics = score(
            [("1", case["caption"])], {"1": case["gt_objects"]}, synonyms, variant, "official"
        ).metrics
        assert (metrics["chair_s"], metrics["chair_i"]) == (expected["CHAIRs"], expected["CHAIRi"])
        assert metrics["recall"] == expected["Recall"]
    captions = [(str(case["image_id"]), case["caption"]) for case in file["cases"]]
    truth = {str(case["image_id"]): case["gt_objects"] for case in file["cases"]}
    overall = score(captions, truth, synonyms, variant, "official").metrics
    assert overall["chair_s"] == file["overall"][key]["CHAIRs"]
    assert overall["chair_i"] == file["overall"][key]["CHAIRi"]
    assert overall["recall"] == file["overall"][key]["Recall"]


@pytest.mark.parametrize(("variant", "key"), VARIANTS)
def test_operas_released_captions_give_its_published_table(variant: Variant, key: str) -> None:
    file, synonyms = oracle.load("chair_opera_logs.json"), official()
    for run in file["runs"]:
        captions = [(str(image), text) for image, text in run["captions"]]
        scored = score(captions, file["ground_truth"], synonyms, variant, "official")
        expected = run["official"][key]
        assert (scored.metrics["chair_s"], scored.metrics["chair_i"]) == (
            expected["CHAIRs"],
            expected["CHAIRi"],
        )
        assert scored.metrics["recall"] == expected["Recall"]
        words, wrong = scored.ratios["chair_i"][1], scored.ratios["chair_i"][0]
        assert list(zip(words.tolist(), wrong.tolist(), strict=True)) == list(
            map(tuple, expected["per_caption"])
        )
        if variant == "opera":  # what the paper counted with
            assert scored.metrics["length"] / 100 == pytest.approx(expected["Len"])
            assert round(100 * scored.metrics["chair_s"], 1) == run["published_percent"]["CHAIRs"]
        if (
            variant == "opera" and run["decoding"] == "OPERA"
        ):  # the greedy CHAIRi is printed as 14.7, its log gives 12.7
            assert round(100 * scored.metrics["chair_i"], 1) == run["published_percent"]["CHAIRi"]


LISTED = Synonyms(
    "ours",
    {
        **{
            "person": "person",
            "man": "person",
            "dog": "dog",
            "collie": "dog",
            "bus": "bus",
            " school bus": "bus",
        },
        **{
            "chair": "chair",
            "seat": "chair",
            "toilet": "toilet",
            "iPhone": "cell phone",
            "cell phone": "cell phone",
        },
        **{
            "oven": "oven",
            "stove": "oven",
            "stove top oven": "oven",
            "dining table": "dining table",
        },
        "table": "dining table",
    },
)


@pytest.mark.parametrize(
    ("caption", "quirky", "mended"),
    [
        ("There is no dog, only a man.", ["dog", "man"], ["man"]),  # negation
        ("Two men on a bus with collies.", ["man"], ["man", "bus", "collie"]),  # plurals
        (
            "A school bus; an iPhone.",
            [],
            ["school bus", "iphone"],
        ),  # stray blanks and capitals in the list
        (
            "A stove top oven by a dining table.",
            ["stove", "oven", "table"],
            ["stove top oven", "dining table"],
        ),
        ("The seat of the toilet, the toilet seat.", ["toilet", "toilet"], ["toilet", "toilet"]),
        ("A baby elephant, an adult dog, a seat.", ["dog", "seat"], ["dog", "seat"]),
    ],
)
def test_quirks_and_their_mending(caption: str, quirky: list[str], mended: list[str]) -> None:
    assert mentions(caption, LISTED, "maxlinn", "official").words == quirky
    assert mentions(caption, LISTED, "maxlinn", "strict").words == mended


def test_how_far_the_figures_move() -> None:
    captions, truth = (
        [("1", "There is no dog, only a man."), ("2", "A dog.")],
        {"1": ["person"], "2": ["dog"]},
    )
    quirky, mended = (
        score(captions, truth, LISTED, "maxlinn", mode) for mode in ("official", "strict")
    )
    assert (
        quirky.counts["hallucinated_word_count"] == 1
        and mended.counts["hallucinated_word_count"] == 0
    )
    assert moved(quirky, mended) == {
        "chair_s": -0.5,
        "chair_i": round(-1 / 3, 6),
        "recall": 0,
        "length": 0,
    }


def test_captions_of_one_image_are_one_draw() -> None:
    captions = [("1", "A dog."), ("1", "A man."), ("2", "A dog.")]
    scored = score(captions, {"1": ["dog"], "2": ["dog"]}, LISTED, "maxlinn", "official")
    assert [column.tolist() for column in scored.ratios["chair_s"]] == [[1, 0], [2, 1]]
    assert scored.counts["num_caps"] == 3 and scored.metrics["chair_i"] == 1 / 3
    low, high = intervals(scored, resamples=50, seed=0, scale=1)["chair_s"]
    assert 0 <= low <= 1 / 3 <= high <= 0.5


def test_nothing_said_is_zero() -> None:
    scored = score([("1", "")], {"1": []}, LISTED, "maxlinn", "official")
    assert scored.metrics == {"chair_s": 0.0, "chair_i": 0.0, "recall": 0.0, "length": 0.0}
    assert score([], {}, LISTED, "maxlinn", "official").metrics["chair_s"] == 0.0


def test_singulars_keep_the_originals_bluntness() -> None:
    regular = {
        "dogs": "dog",
        "benches": "bench",
        "knives": "knife",
        "puppies": "puppy",
        "stoves": "stove",
        "mice": "mouse",
    }
    blunt = {
        "bus": "bu",
        "his": "hi",
        "slice": "slouse",
        "collies": "collies",
        "shelves": "shelve",
        "ties": "ty",
    }
    same = {word: word for word in ("scissors", "sheep", "is", "luggage", "dog")}
    for word, expected in {
        **regular,
        **blunt,
        **same,
        "gentlemen": "gentleman",
        "people": "person",
    }.items():
        assert singular(word) == expected


def test_the_list_of_our_own() -> None:
    synonyms = read_synonyms(OWN_LIST)
    objects = set(synonyms.owner.values())
    assert len(objects) == 80 and all(synonyms.owner[name] == name for name in objects)
    assert all(word == " ".join(word.lower().split()) for word in synonyms.owner)
    lines = OWN_LIST.read_text(encoding="utf-8").splitlines()
    assert sum(len(line.split(", ")) for line in lines) == len(synonyms.owner), (
        "a word means two objects"
    )
    found = mentions(
        "Two surfers with their surfboards near a polar bear.", synonyms, "maxlinn", "strict"
    )
    assert found.objects == ["person", "surfboard", "bear"]


def test_an_image_without_truth_is_named() -> None:
    with pytest.raises(InputError, match="image_id '7'"):
        score([("7", "A dog.")], {"1": ["dog"]}, LISTED, "maxlinn", "official")


@pytest.mark.parametrize(
    ("content", "problem"),
    [("", "is empty"), ("\n \n", "is empty"), ("dog,puppy", "row 1: put a blank")],
)
def test_a_broken_list_is_named(tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "synonyms.txt"
    path.write_text(content)
    with pytest.raises(InputError, match=r"synonyms\.txt") as error:
        read_synonyms(path)
    assert problem in str(error.value)
