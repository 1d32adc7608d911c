"""What training and evaluation count yes and no with; the programs are in `tests/score`."""

from adapt.metrics.pope import METRICS, aggregate, confusion, fractions, parse_yes_no


def test_answers_of_the_default_world() -> None:
    assert parse_yes_no("yes, there is a tree.") and not parse_yes_no("no, there is no tree.")


def test_all_no_scores_zero_where_the_official_code_divides_by_zero() -> None:
    assert aggregate([True, False], [False, False]) == dict.fromkeys(METRICS, 0) | {"accuracy": 50}
    assert aggregate([], [])["accuracy"] == 0.0


def test_what_is_neither_is_wrong() -> None:
    pairs = [(True, True), (True, None), (False, None), (False, False)]
    assert confusion(pairs) == {"TP": 1, "FP": 0, "TN": 1, "FN": 0, "neither": 2}
    counts = fractions(pairs)
    assert counts["accuracy"] == (2, 4) and counts["recall"] == (1, 2)
    assert counts["yes_ratio"] == (1, 4) and tuple(counts) == METRICS
