"""Answers in memory are scored as `python -m adapt.score` scores the file written of them."""

import json

import pandas as pd
import pytest

from adapt.benchmarks import registry
from adapt.generation import verdicts as judging
from adapt.params import InputError
from adapt.score import __main__ as command
from tests.support import benchmark_folders as made
from tests.support import oracle
from tests.support.benchmark_folders import MAKERS, benchmark

ANSWERS = {
    "amber": {"1": "A car and a tree.", "2": "A house.", "3": "No", "4": "yes", "5": "No"},
    "pope": {"1": "Yes", "2": "Yes, a dog.", "3": "No", "4": "no.", "5": "No", "6": "No"},
    "chair": {"7": "A dog.", "9": "Two dogs with a cup.", "42": "A cat in a car."},
    "objhal": {"42": "A dog and a cat.", "9": "A cup."},
}


def options(name, root):
    return {"objhal": {"truth": str(root / "objects.json")}}.get(name, {})


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("mode", ["official", "strict"])
def test_the_written_file_has_the_same_figures(name, mode, tmp_path, monkeypatch, capsys):
    oracle.use_nltk_data(monkeypatch)
    path = MAKERS[name](tmp_path)
    settings = benchmark(name, path, **options(name, tmp_path))
    suite, file = registry.read(settings), tmp_path / "answers.json"
    registry.write_answers(file, suite, ANSWERS[name])
    words = registry.scoring(settings, file).removeprefix("python -m adapt.score ").split()
    assert command.main([*words, "--mode", mode, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    scored = registry.score(settings, ANSWERS[name], mode=mode)
    assert scored.counts == printed["counts"]
    assert {name: printed["metrics"][name] for name in scored.metrics} == scored.metrics
    assert set(scored.ratios) == set(printed["intervals"])


def test_ambers_figures_by_hand(tmp_path, monkeypatch):
    oracle.use_nltk_data(monkeypatch)
    scored = registry.score(
        benchmark("amber", made.amber(tmp_path)), ANSWERS["amber"], mode="strict"
    )
    # car, tree and house are named, of car, house and tree; the tree of picture 1 is not there.
    assert scored.metrics["chair"] == 33.3 and scored.metrics["hal"] == 50.0
    assert scored.metrics["cover"] == 66.7 and scored.metrics["accuracy"] == 100.0


def test_some_of_the_answers_are_scored_alone(tmp_path, monkeypatch):
    oracle.use_nltk_data(monkeypatch)
    settings = benchmark("amber", made.amber(tmp_path))
    scored = registry.score(settings, {"2": "A house."})
    assert scored.metrics["hal"] == 0.0 and "accuracy" not in scored.metrics


def test_ambers_own_form(tmp_path):
    suite = registry.read(benchmark("amber", made.amber(tmp_path)))
    file = tmp_path / "answers.json"
    registry.write_answers(file, suite, {"3": "No", "1": 'Say "a\nb"'})
    rows = json.loads(file.read_text())
    assert rows == [{"id": 1, "response": 'Say "a\nb"'}, {"id": 3, "response": "No"}]


def test_popes_form_serves_both_programs(tmp_path):
    settings = benchmark("pope", made.pope(tmp_path), parser="vcd")
    file = tmp_path / "answers.jsonl"
    registry.write_answers(file, registry.read(settings), ANSWERS["pope"])
    first = json.loads(file.read_text().splitlines()[0])
    question = "Is there a snowboard in the image?"
    assert first == {"question_id": 1, "question": question, "answer": "Yes", "text": "Yes"}
    assert registry.score(settings, ANSWERS["pope"]).variant["parser"] == "vcd"


def test_mmhal_needs_a_judge(tmp_path):
    settings = benchmark("mmhal", made.mmhal(tmp_path))
    answers = {"0": "A dog.", "1": "A cat."}
    with pytest.raises(InputError, match="nobody has judged the answers; give verdicts"):
        registry.score(settings, answers)
    scored = registry.score(settings, answers, {"0": "Rating: 6", "1": "Rating: 1"})
    assert scored.metrics["hallucination_rate"] == 0.5
    with pytest.raises(InputError, match="1 of 2 have no verdict"):
        registry.score(settings, answers, {"0": "Rating: 6"})
    file = tmp_path / "answers.json"
    registry.write_answers(file, registry.read(settings), answers)
    rows = json.loads(file.read_text())
    assert [row["model_answer"] for row in rows] == ["A dog.", "A cat."]
    assert rows[0]["image_content"] == ["dog", "grass"]


def test_verdicts_from_a_file_by_arm(tmp_path):
    path = made.mmhal(tmp_path)
    made.write(tmp_path / "base.json", ["Rating: 6", "Rating: 2"])
    settings = benchmark("mmhal", path, verdicts=str(tmp_path / "{arm}.json"))
    suite, answers = registry.read(settings), {"0": "a", "1": "b"}
    verdicts = judging.verdicts(settings, suite, answers, "base", tmp_path)
    assert verdicts == {"0": "Rating: 6", "1": "Rating: 2"}
    with pytest.raises(InputError, match=r"tuned\.json"):
        judging.verdicts(settings, suite, answers, "tuned", tmp_path)
    made.write(tmp_path / "base.json", ["Rating: 6"])
    with pytest.raises(InputError, match="has 1 verdicts, and there are 2 questions"):
        judging.verdicts(settings, suite, answers, "base", tmp_path)


def test_verdicts_about_other_answers_are_refused(tmp_path):
    path = made.mmhal(tmp_path)
    rows = [{"judge": "Rating: 6", "model_answer": text} for text in ("a", "b")]
    made.write(tmp_path / "judged.json", rows)
    settings = benchmark("mmhal", path, verdicts=str(tmp_path / "judged.json"))
    suite = registry.read(settings)
    assert judging.verdicts(settings, suite, {"0": "a", "1": "b"}, "base", tmp_path)
    with pytest.raises(InputError, match=r"judged\.json row 2: model_answer is not the answer"):
        judging.verdicts(settings, suite, {"0": "a", "1": "c"}, "base", tmp_path)


@pytest.mark.parametrize("name", MAKERS)
def test_what_scoring_lacks_is_told_beforehand(name, tmp_path, monkeypatch):
    oracle.use_nltk_data(monkeypatch)
    settings = benchmark(name, MAKERS[name](tmp_path), **options(name, tmp_path))
    suite = registry.read(settings)
    registry.rehearse(settings, suite)
    table = {"objhal": "truth", "amber": "similarity", "chair": "synonyms"}
    if name in table:
        settings = settings.model_copy(update={table[name]: str(tmp_path / "nowhere.json")})
        with pytest.raises(InputError, match=r"nowhere\.json"):
            registry.rehearse(settings, suite)


def test_hallusion_by_rule_and_by_verdicts(tmp_path):
    settings = benchmark("hallusion", made.hallusion(tmp_path))
    ids = ("VD_s_0_0_0", "VD_s_0_1_0", "VS_s_0_0_0")
    answers = dict(zip(ids, ("Yes.", "Yes, they are.", "I cannot say."), strict=True))
    by_rule = registry.score(settings, answers)
    # Right; wrong with the answer to the original; unclear without a figure counts as right.
    assert by_rule.counts["question_correct"] == 2 and by_rule.counts["pair_Mix"] == 1
    records = pd.DataFrame(json.loads((tmp_path / "HallusionBench.json").read_text()))
    given = records.assign(gpt4v_output_gpt_check=["0", "1", "1"], same="0")
    (tmp_path / "judged.json").write_text(given.to_json(orient="records"))
    settings = settings.model_copy(update={"verdicts": str(tmp_path / "judged.json")})
    verdicts = judging.verdicts(settings, registry.read(settings), answers, "base", tmp_path)
    scored = registry.score(settings, answers, verdicts)
    assert scored.counts["question_correct"] == 2 and scored.metrics["fAcc"] == 50.0


def test_object_halbench_without_truth_is_not_scored(tmp_path):
    settings = benchmark("objhal", made.objhal(tmp_path))
    with pytest.raises(InputError, match="what is in the pictures is not known; give truth"):
        registry.score(settings, ANSWERS["objhal"])
