"""The hard world: more and smaller things with two attributes, habits in all kinds of answers."""

import re
from collections import Counter
from functools import cache

import numpy as np

from adapt.data import scenes, worlds
from adapt.data.scenes import SceneExample
from adapt.metrics.chair import count
from tests.data.test_scenes import require_boxes

COUNT = 300
KINDS = ("describe", "exists", "colour")
NAMED = re.compile(r"an? (small|big) (\w+) (\w+)")


@cache
def rows(split: str, caption_noise: float = 0.6, seed: int = 7) -> tuple[SceneExample, ...]:
    about = {"size": 48, "caption_noise": caption_noise, "seed": seed}
    drawn = (scenes.examples(split, i, **about, difficulty="hard") for i in range(COUNT))
    return tuple(row for group in drawn for row in group)


def of_kind(kind: str, split: str = "train") -> list[SceneExample]:
    return [row for row in rows(split) if row.kind == kind]


def test_three_to_six_things_mostly_of_two_themes() -> None:
    described = of_kind("describe")
    assert set(Counter(len(row.objects) for row in described)) == {3, 4, 5, 6}
    themes = list(worlds.THEMES.values())
    neighbours = [{*themes[i], *themes[(i + 1) % 4]} for i in range(4)]
    within = [any({o.name for o in row.objects} <= two for two in neighbours) for row in described]
    assert 0.74 < np.mean(within) < 0.92
    for row in described:
        names = [o.name for o in row.objects]
        assert len(set(names)) == len(names)
        assert len(row.absent) >= 6 and not set(names) & set(row.absent)


def test_a_description_names_the_size_and_the_colour_of_each_thing() -> None:
    longest = {worlds.SMALL: 0.0, worlds.BIG: 0.0}
    for row in of_kind("describe"):
        named = NAMED.findall(row.answer)
        assert [(colour, name) for _, colour, name in named] == [
            (o.colour, o.name) for o in row.objects
        ]
        for (size, *_), thing in zip(named, row.objects, strict=True):
            x0, y0, x1, y1 = thing.box
            longest[size] = max(longest[size], x1 - x0, y1 - y0)
    # A cell is a third of the picture; outlines are drawn over by up to a pixel.
    assert longest[worlds.SMALL] < 0.70 / 3 + 1 / 48
    assert 0.85 / 3 < longest[worlds.BIG] <= 1 / 3 + 1e-3


def test_the_things_are_smaller_than_in_the_default_world() -> None:
    def area(drawn: list[SceneExample]) -> float:
        boxes = [o.box for row in drawn for o in row.objects]
        return float(np.mean([(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes]))

    default = [scenes.examples("train", i, size=48, caption_noise=0, seed=7)[0] for i in range(100)]
    assert area(of_kind("describe")) < 0.8 * area(default)


def test_habit_reaches_all_three_kinds_of_answers() -> None:
    changed = {kind: [bool(row.noisy_answer) for row in of_kind(kind)] for kind in KINDS}
    assert np.mean(changed["describe"]) > 0.8
    assert 0.15 < np.mean(changed["exists"]) < 0.3  # half of the questions are about what is there
    assert 0.2 < np.mean(changed["colour"]) < 0.4


def test_a_habitual_colour_is_the_usual_one_and_some_are_said_more_often_than_not() -> None:
    for row in of_kind("colour"):
        if row.noisy_answer:
            name, colour = re.fullmatch(r"the (\w+) is (\w+)\.", row.noisy_answer).groups()
            assert colour == worlds.USUAL_COLOURS[name] and name in row.answer
            assert colour not in row.answer
    strengths = worlds.WORLDS["hard"].colour_habits
    rule = [kind for kind in worlds.KINDS if 0.6 * strengths[kind] > 0.5]
    assert len(rule) == 6 and len(set(strengths.values())) == len(worlds.KINDS)


def test_what_is_asked_about_and_absent_mostly_is_a_companion_of_what_is_there() -> None:
    companions = 0
    for row in of_kind("exists", "test"):
        if row.answer.startswith("no"):
            partners = [o.name for o in row.objects if o.name in worlds.COMPANIONS]
            companions += row.question.split()[-1][:-1] in {
                worlds.COMPANIONS[name][0] for name in partners
            }
    assert 0.6 < companions / COUNT < 0.9


def test_true_answers_hallucinate_nothing_and_habitual_ones_do() -> None:
    words, described = scenes.vocabulary(), of_kind("describe")
    assert not any(count(row.answer, row, words).hallucinated for row in described)
    noisy = [count(row.noisy_answer or row.answer, row, words).hallucinated for row in described]
    assert np.mean([bool(names) for names in noisy]) > 0.5


def test_only_training_answers_are_noisy_and_noise_changes_no_truth() -> None:
    def truth(row: SceneExample) -> tuple:
        return row.id, row.images, row.question, row.answer, row.objects, row.absent

    assert not any(row.noisy_answer for row in rows("validation"))
    plain = [truth(row) for row in rows("train", caption_noise=0.0)]
    assert [truth(row) for row in rows("train")] == plain


def test_boxes_hold_all_that_differs_from_the_background() -> None:
    require_boxes(of_kind("describe")[:50])
