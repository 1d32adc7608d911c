"""Preference pairs about pictures of noise, as a file for `fit` and as rows for a trainer."""

import dataclasses
import io

from adapt.preference.pairs import Pair
from tests.support import tiny_world


def pairs(count: int) -> list[Pair]:
    """The two answers of `tiny_world` by turns, each with an anchor on another patch."""
    found = []
    for i in range(count):
        png = io.BytesIO()
        tiny_world.picture(i).save(png, "PNG")
        found.append(
            Pair(
                id=f"row-{i}",
                kind="describe",
                image=png.getvalue(),
                question=tiny_world.QUESTIONS[i % 2],
                chosen=tiny_world.ANSWERS[i % 2],
                rejected=tiny_world.ANSWERS[(i + 1) % 2],
                chosen_score=1.0,
                rejected_score=0.0,
                anchor=tuple(float(k == i % 16) + 0.1 for k in range(16)),
                grid=(4, 4),
            )
        )
    return found


def changed(pair: Pair, **changes) -> Pair:
    return dataclasses.replace(pair, **changes)
