"""Choosing on validation: the lowest Hal that costs nothing, by hand."""

from adapt.generation.choosing import best

PLAIN = {"hal": 30.0, "cover": 95.0}


def figures(hal, cover=95.0, **more):
    return {"hal": hal, "cover": cover, **more}


def test_the_lowest_hal_among_those_that_keep_cover():
    trials = [figures(20.0), figures(12.0, cover=94.0), figures(8.0, cover=93.9), figures(12.0)]
    assert best(trials, PLAIN) == 1, "a point of Cover may go, more may not; the first of equals"


def test_where_all_lose_too_much_the_least_loss_counts():
    assert best([figures(5.0, cover=80.0), figures(9.0, cover=91.0)], PLAIN) == 1


def test_what_was_not_measured_is_not_asked_for():
    assert best([figures(20.0), figures(12.0, cover=60.0)], {"hal": 30.0}) == 1
    lost = figures(12.0, pope_f1=50.0)
    assert best([figures(20.0), lost], PLAIN) == 1
    assert best([figures(20.0), lost], {**PLAIN, "pope_f1": 95.0}) == 0
