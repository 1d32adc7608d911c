"""Object HalBench: equal to the official counts, and its rules one by one."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapt.params import InputError
from adapt.score.chair import Synonyms, join, read_synonyms
from adapt.score.object_halbench import Caption, mentioned, score
from tests.support import oracle

LISTED = Synonyms(
    "by hand",
    {
        **{
            name: name
            for name in (
                "dog",
                "cat",
                "dining table",
                "chair",
                "tie",
                "toilet",
                "hot dog",
                "scissors",
                "cup",
            )
        },
        **{
            "man": "person",
            "woman": "person",
            "table": "dining table",
            "seat": "chair",
            "ball": "sports ball",
        },
    },
)


pytestmark = pytest.mark.usefixtures("nltk_data")


def objects(*phrases: str, strict: bool = False) -> list[str]:
    return mentioned(Caption("", "", phrases), LISTED, "strict" if strict else "official")


@pytest.mark.parametrize("kind", ["gpt_objects", "plain"])
def test_equals_the_official_code(kind: str) -> None:
    file = oracle.load("object_halbench.json")
    listed = read_synonyms(oracle.FOLDER.parent / "chair" / "synonyms_refine.txt")
    captions = [
        Caption(
            str(case["image_id"]),
            case["caption"],
            tuple(case["extracted_objects"]) if kind != "plain" else None,
        )
        for case in file["cases"]
    ]
    official = file["official"][kind]
    for caption, case in zip(captions, official["per_caption"], strict=True):
        assert mentioned(caption, listed, "official") == case["node_words"], caption
    truth = {str(case["image_id"]): case["gt_objects"] for case in file["cases"]}
    scored = score(captions, truth, listed, "official")
    ours = {**scored.metrics, **scored.counts}
    assert {name: ours[name] for name in official["overall"]} == official["overall"]
    assert scored.counts["hallucinated_mention_num"] == sum(
        len(c["hallucinated"]) for c in official["per_caption"]
    )


def test_phrases() -> None:
    assert objects("wooden table", "orange cats", "dogs") == ["dining table", "cat", "dog"]
    assert objects("soccer ball", "office chair") == []  # runs of nouns that the list does not have
    assert objects("soccer ball", "office chair", strict=True) == ["sports ball", "chair"]
    assert objects("hot dogs", "bow ties", "baby cat", "toilet seat") == [
        "hot dog",
        "tie",
        "cat",
        "toilet",
    ]
    assert objects("men", "man", "woman", "women") == ["person", "person"]
    assert objects("men", "woman", strict=True) == ["person"]
    assert objects("toilet", "seat") == ["toilet"] and objects("seat") == ["chair"]
    assert (objects("scissors"), objects("scissors", strict=True)) == ([], ["scissors"])
    assert objects("", " ", "a dog and a cat") == ["dog", "cat"]


def test_captions() -> None:
    def plain(text: str, strict: bool = False) -> list[str]:
        return mentioned(Caption("", text, None), LISTED, "strict" if strict else "official")

    assert plain("Dogs, a dog and men.") == ["dog", "dog"]
    assert plain("Dogs, a dog and men.", strict=True) == ["dog", "dog", "person"]
    assert plain("There is no dog, only a hot dog.") == ["dog", "hot dog"]
    assert plain("There is no dog, only a hot dog.", strict=True) == ["hot dog"]


def test_by_hand() -> None:
    captions = [
        Caption("1", "A fine day.", ()),
        Caption("2", "A dog with a cat", ("dog", "cat")),
        Caption("3", "dogs", ("dogs",)),
    ]
    truth = {"1": ["dog"], "2": ["dog", "tie"], "3": ["dog"]}
    scored = score(captions, truth, LISTED, "official")
    rates = [
        scored.metrics[name]
        for name in ("CHAIRs", "CHAIRs_refine", "CHAIRi", "obj_rec", "avg_word_len")
    ]
    assert rates == pytest.approx([1 / 3, 1 / 2, 1 / 3, 2 / 4, 9 / 3])
    empty = score([Caption("1", "", None)], truth, LISTED, "official").metrics
    assert empty["avg_word_len"] == 1 and empty["CHAIRi"] == 0 and empty["object_correct_rate"] == 1


def test_a_pair_is_found_from_the_left() -> None:
    assert join(["hot", "dog", "dog"], LISTED.phrases, 2) == [("hot dog", 2), ("dog", 1)]
    assert join(["a", "hot"], LISTED.phrases, 2) == [("a", 1), ("hot", 1)]


def test_missing_nltk_data_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("nltk.data.path", [str(tmp_path)])
    for caption in (
        Caption("", "a dog", None),
        Caption("", "", ("dog",)),
        Caption("", "", ("red dog",)),
    ):
        with pytest.raises(InputError, match=r"NLTK_DATA: .* run `python -m nltk.downloader"):
            mentioned(caption, LISTED, "official")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.lists(st.sampled_from(["dog", "cat", "cups", "lamp", "man"]), max_size=4),
        min_size=1,
        max_size=5,
    )
)
def test_order_duplicates_and_grounded_words(phrases: list[list[str]]) -> None:
    captions = [Caption(str(i), "", tuple(names)) for i, names in enumerate(phrases)]
    truth = {caption.image: ["dog", "person"] for caption in captions}
    found = score(captions, truth, LISTED, "official")
    assert score(captions[::-1], truth, LISTED, "official").counts == found.counts
    doubled = score(captions * 2, truth, LISTED, "official")
    assert doubled.metrics == pytest.approx(found.metrics)
    more = [
        Caption(c.image, "", (*(c.extracted or ()), "dogs")) for c in captions
    ]  # "dogs" are there
    richer = score(more, truth, LISTED, "official")
    assert richer.counts["hallucinated_mention_num"] == found.counts["hallucinated_mention_num"]
    assert richer.metrics["CHAIRi"] <= found.metrics["CHAIRi"]
