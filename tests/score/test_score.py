"""The command line over the official evaluators' cases, in each benchmark's own file form."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from adapt.score.__main__ import main
from tests.support import oracle, scoring
from tests.support.scoring import pope_files, run, written


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of benchmark data."""
    return scoring.shared(monkeypatch)


# --- AMBER ---


def amber(folder: Path, responses: Any, *more: Any) -> dict[str, Any]:
    return run(
        "amber",
        "--responses",
        written(folder / "r.json", responses),
        "--truth",
        scoring.SHARED / "amber",
        *more,
    )


def test_amber_descriptions(shared: Path, tmp_path: Path) -> None:
    file = oracle.load("amber_generative.json")
    responses = [{"id": case["id"], "response": case["response"]} for case in file["cases"]]
    pairs = shared / "oracle" / "amber_similarity_pairs.json"
    for backend, more in {"exact": [], "md371": ["--similarity", pairs]}.items():
        result, official = amber(tmp_path, responses, *more), file["official"][backend]
        for name, value in official["printed"].items():
            assert result["metrics"][name.lower()] == result[name.lower()] == value
        assert {name: result["counts"][name] for name in official["counters"]} == official[
            "counters"
        ]
    assert result["metrics"]["length"] > 0 and "accuracy" not in result["metrics"]
    assert result["versions"]["amber_similarity_pairs.json"].startswith("sha256:")
    low, high = result["intervals"]["chair"]
    assert low <= result["chair"] <= high
    table = ["--similarity", pairs, "--lemmas", shared / "oracle" / "amber_lemma_table.json"]
    assert amber(tmp_path, responses, *table)["counts"] == result["counts"]


def test_amber_single_responses(shared: Path, tmp_path: Path) -> None:
    for case in oracle.load("amber_generative.json")["cases"][::12]:
        result = amber(tmp_path, [{"id": case["id"], "response": case["response"]}])
        printed = case["printed_alone"]["exact"]
        assert {name: result[name.lower()] for name in printed} == printed


def test_amber_answers(shared: Path, tmp_path: Path) -> None:
    notes = json.loads((shared / "amber" / "annotations.json").read_text())
    for case in oracle.load("amber_discriminative.json")["runs"]:
        by_formula = [  # the formula that the file gives
            {
                "id": note["id"],
                "response": "Yes" if draw < (70 if note["truth"] == "yes" else 35) else "No",
            }
            for note in notes
            if note["type"] != "generative"
            for draw in [int(hashlib.sha1(f"alpha:{note['id']}".encode()).hexdigest(), 16) % 100]
        ]
        result = amber(tmp_path, case["responses"] or by_formula)
        official = case["official"]["d"]["printed"]["Descriminative Task"]
        assert {name: result[name.lower()] for name in official} == official
        counters = case["official"]["counters"]
        assert {name: result["counts"][name] for name in counters} == counters
        assert "chair" not in result["metrics"] and "amber_score" not in result["metrics"]


def test_amber_score_and_strict_mode(shared: Path, tmp_path: Path) -> None:
    described = oracle.load("amber_generative.json")["cases"]
    asked = oracle.load("amber_discriminative.json")["runs"][1]["responses"]
    both = [{"id": case["id"], "response": case["response"]} for case in described] + asked
    official = amber(tmp_path, both)
    assert official["amber_score"] == pytest.approx(
        (100 - official["chair"] + official["f1"]) / 2, abs=0.006
    )
    strict = amber(tmp_path, both, "--mode", "strict")
    assert strict["official"]["metrics"] == official["metrics"]
    for name, moved in strict["official"]["difference"].items():
        assert strict["metrics"][name] - official["metrics"][name] == pytest.approx(moved, abs=1e-6)
    low, high = strict["official"]["difference_intervals"]["chair"]
    assert low <= high


# --- CHAIR ---


@pytest.mark.parametrize("variant", ["opera", "maxlinn"])
def test_chair_of_written_captions(variant: str, shared: Path, tmp_path: Path) -> None:
    file = oracle.load("chair_handwritten.json")
    name = {"opera": "opera_nltk", "maxlinn": "maxlinn_pattern"}[variant]
    captions = [
        {"image_id": case["image_id"], "caption": case["caption"]} for case in file["cases"]
    ]
    truth = written(
        tmp_path / "truth.json", {case["image_id"]: case["gt_objects"] for case in file["cases"]}
    )
    synonyms = shared / "chair" / "synonyms.txt"
    for responses in (
        written(tmp_path / "a.json", captions),
        written(tmp_path / "a.jsonl", captions, lines=True),
    ):
        result = run(
            "chair",
            "--responses",
            responses,
            "--truth",
            truth,
            "--variant",
            variant,
            "--synonyms",
            synonyms,
        )
        official = file["overall"][name]
        assert (result["chair_s"], result["chair_i"]) == (official["CHAIRs"], official["CHAIRi"])
        assert result["recall"] == official["Recall"]


def test_chair_of_released_captions(shared: Path, tmp_path: Path) -> None:
    file = oracle.load("chair_opera_logs.json")
    truth = written(tmp_path / "truth.json", file["ground_truth"])
    common = ["--truth", truth, "--synonyms", shared / "chair" / "synonyms.txt"]
    paths = []
    for number, case in enumerate(file["runs"]):
        captions = [{"image_id": image, "caption": caption} for image, caption in case["captions"]]
        paths.append(written(tmp_path / f"{number}.jsonl", captions, lines=True))
        official = case["official"]["opera_nltk"]
        result = run("chair", "--responses", paths[-1], *common)
        assert (result["chair_s"], result["chair_i"]) == (official["CHAIRs"], official["CHAIRi"])
        assert result["recall"] == official["Recall"]
    both = run("chair", "--responses", paths[1], "--against", paths[0], *common)
    difference = (
        file["runs"][1]["official"]["opera_nltk"]["CHAIRs"]
        - file["runs"][0]["official"]["opera_nltk"]["CHAIRs"]
    )
    assert both["against"]["difference"]["chair_s"] == pytest.approx(difference, abs=1e-6)
    low, high = both["against"]["difference_intervals"]["chair_s"]
    assert low <= difference <= high


def test_chair_with_coco_files_and_the_own_list(shared: Path, tmp_path: Path) -> None:
    notes = [{"image_id": 1, "category_id": 18}]
    categories = [{"id": 18, "name": "dog"}]
    written(
        tmp_path / "instances_val2014.json",
        {"images": [{"id": 1}], "categories": categories, "annotations": notes},
    )
    written(
        tmp_path / "captions_val2014.json",
        {"annotations": [{"image_id": 1, "caption": "A man with a dog."}]},
    )
    answers = written(
        tmp_path / "answers.json", [{"image_id": 1, "caption": "A woman, a dog and a cat."}]
    )
    result = run("chair", "--responses", answers, "--truth", tmp_path)
    assert (result["chair_s"], result["chair_i"], result["recall"]) == (1, 1 / 3, 1)
    assert set(result["versions"]) == {
        "nltk",
        "instances_val2014.json",
        "captions_val2014.json",
        "objects.txt",
    }


# --- POPE ---


@pytest.mark.parametrize("program", ["official", "vcd", "lmms_eval"])
def test_pope(program: str, tmp_path: Path) -> None:
    for case in oracle.load("pope_evaluate.json")["runs"].values():
        files = pope_files(tmp_path, case["answers"], case["labels"])
        result = run("pope", *files, "--parser", program.replace("_", "-"))
        found = {**result["metrics"], **result["counts"]}
        assert all(found[name] == value for name, value in case[program].items() if name != "error")


def test_pope_splits(tmp_path: Path) -> None:
    for split, false_yes in {"random": 8, "popular": 15, "adversarial": 24}.items():
        labels = ["yes" if i % 2 else "no" for i in range(1, 3001)]
        draws = [
            int(hashlib.sha1(f"alpha:{split}:{i}".encode()).hexdigest(), 16) % 100
            for i in range(1, 3001)
        ]
        answers = [
            "Yes" if d < (86 if y == "yes" else false_yes) else "No"
            for d, y in zip(draws, labels, strict=True)
        ]
        result = run("pope", *pope_files(tmp_path, answers, labels))
        official = oracle.load("pope_evaluate.json")["full_coco_splits"][split]["official"]
        assert {
            name: {**result["metrics"], **result["counts"]}[name] for name in official
        } == official
        low, high = result["intervals"]["f1"]
        assert low < result["f1"] < high and high - low < 0.05


def test_pope_strict_and_partly_answered(tmp_path: Path) -> None:
    files = pope_files(tmp_path, ["NO", "yes"], ["no", "yes", "no"])
    result = run("pope", *files, "--mode", "strict")
    assert result["accuracy"] == 1 and result["official"]["metrics"]["accuracy"] == 0.5
    assert result["official"]["difference"]["accuracy"] == 0.5
    assert result["notes"] == ["1 of 3 questions have no answer and are left out"]


@pytest.mark.parametrize("name", ["answers.json", "answers.csv", "answers.parquet"])
def test_every_kind_of_file_scores_alike(name: str, tmp_path: Path) -> None:
    files = pope_files(tmp_path, ["yes", "No, it is", ""], ["yes", "no", "no"])
    rows = pd.read_json(files[1], lines=True)
    path = tmp_path / name
    if path.suffix == ".json":
        rows.to_json(path, orient="records")
    elif path.suffix == ".csv":
        rows.to_csv(path, index=False)
    else:
        rows.to_parquet(path)
    expected, found = run("pope", *files), run("pope", "--responses", path, *files[2:])
    assert found == expected


def test_a_table_of_two_files_of_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = pope_files(tmp_path, ["yes", "no"], ["yes", "no"])
    longer = [{"question_id": i, "answer": "Yes, there is one."} for i in (1, 2)]
    other = written(tmp_path / "other.json", longer)
    result = run("pope", *files, "--against", other)
    assert result["against"]["difference"]["length"] == -3
    for mode in ("official", "strict"):
        arguments = ["pope", *map(str, files), "--against", str(other), "--mode", mode]
        assert main(arguments) == 0
        assert "length" in capsys.readouterr().out


def test_renamed_columns_and_other_answers(tmp_path: Path) -> None:
    files = pope_files(tmp_path, ["yes", "no"], ["yes", "no"])
    mine = written(tmp_path / "mine.json", [{"qid": 1, "out": "yes"}, {"qid": 2, "out": "yes"}])
    renamed = ["--rename", "qid=question_id", "--rename", "out=answer"]
    result = run("pope", "--responses", mine, *files[2:], *renamed)
    assert result["accuracy"] == 0.5
    vcd = written(tmp_path / "vcd.json", [{"question_id": 1, "text": "yes"}])
    assert run("pope", "--responses", vcd, *files[2:], "--parser", "vcd")["accuracy"] == 1
    assert "'2'" in run("pope", *files, "--against", vcd, "--parser", "vcd", code=2)["error"]


# --- judged, and Object HalBench ---


@pytest.mark.parametrize("kind", ["gpt_objects", "plain"])
def test_object_halbench(kind: str, shared: Path, tmp_path: Path) -> None:
    file = oracle.load("object_halbench.json")
    rows = [{"image_id": case["image_id"], "caption": case["caption"]} for case in file["cases"]]
    if kind == "gpt_objects":
        rows = [
            {**row, "extract_objs": case["extracted_objects"]}
            for row, case in zip(rows, file["cases"], strict=True)
        ]
    truth = written(
        tmp_path / "truth.json", {case["image_id"]: case["gt_objects"] for case in file["cases"]}
    )
    answers = written(tmp_path / "answers.jsonl", rows, lines=True)
    synonyms = shared / "chair" / "synonyms_refine.txt"
    result = run("objhal", "--responses", answers, "--truth", truth, "--synonyms", synonyms)
    found = {**result["metrics"], **result["counts"]}
    assert {name: found[name] for name in file["official"][kind]["overall"]} == file["official"][
        kind
    ]["overall"]


def test_mmhal_in_its_three_forms(tmp_path: Path) -> None:
    file = oracle.load("mmhal.json")
    texts = file["judge_texts"]
    replies = [{"choices": [{"message": {"content": text}}]} for text in texts]
    results = [
        run("mmhal", "--responses", written(tmp_path / "review.json", content))
        for content in (texts, replies, [{"judge": text} for text in texts])
    ]
    assert results[0] == results[1] == results[2]
    assert (
        f"{results[0]['hallucination_rate']:.2f}" == file["official_printed"]["Hallucination rate"]
    )
    answers = written(tmp_path / "answers.json", [{"model_answer": "two words"}] * len(texts))
    with_answers = run("mmhal", "--responses", tmp_path / "review.json", "--truth", answers)
    assert with_answers["length"] == 2 and "length" not in results[0]
    few = run("mmhal", "--responses", written(tmp_path / "few.json", texts[:8]))
    assert few["notes"] == [
        "MMHal has 96 questions, whose types follow from their order; here are 8 verdicts"
    ]


def test_hallusion(tmp_path: Path) -> None:
    file = oracle.load("hallusionbench.json")
    records = [
        {name: value for name, value in row.items() if name != "correct"} for row in file["records"]
    ]
    result = run("hallusion", "--responses", written(tmp_path / "result.json", records))
    for name in ("aAcc", "qAcc", "fAcc", "easy_pair_acc", "hard_pair_acc"):
        assert result[name] == file["official"][name]
    assert result["counts"]["pair_VI"] == file["official"]["pair"]["VI"]
    verdicts = [
        {n: v for n, v in row.items() if n not in ("gt_answer", "visual_input")} for row in records
    ]
    questions = written(tmp_path / "HallusionBench.json", records)
    split = run(
        "hallusion",
        "--responses",
        written(tmp_path / "v.json", verdicts[::-1]),
        "--truth",
        questions,
    )
    assert split["metrics"] == pytest.approx(result["metrics"], abs=1e-12)
    strict = run("hallusion", "--responses", tmp_path / "result.json", "--mode", "strict")
    assert set(strict["official"]["difference"].values()) == {0}
