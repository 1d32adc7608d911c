"""Labels of words and metrics of an arm, from tables by hand."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest

from adapt.data import scenes
from adapt.data.schema import Example, SceneObject
from adapt.evaluation.degradation import DRAWN
from adapt.evaluation.judge import judge

K = 2
# "a", " red", " car", ",", " a", " blue", " house": where each token ends
ENDS = {"a": [1, 5, 9, 10, 12, 17, 23], "b": [2, 3, 9, 12, 15, 19, 20]}
TEXTS = {"a": "a red car, a blue house", "b": "no, there is no car."}


def example(name: str, *things: str) -> Example:
    one = scenes.examples("test", 0, size=32, caption_noise=0.0, seed=7)[0]
    objects = tuple(SceneObject(name=t, colour="red", box=(0, 0, 1, 1)) for t in things)
    return dataclasses.replace(one, id=name, image_id=name, objects=objects, absent=())


def tables(steered: bool = False, **ends: list[int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    ends = ENDS | ends
    answers = [
        {
            "id": n,
            "image_id": n,
            "kind": "describe",
            "response": text,
            "reference": "",
            "question": "describe the picture.",
            "tokens": len(ends[n]),
            "steered": steered,
        }
        for n, text in TEXTS.items()
    ]
    frames = []
    for name, places in ends.items():
        t = np.arange(len(places))
        columns: dict[str, Any] = {
            "id": name,
            "position": t,
            "relative": t / t[-1],
            "length": len(t),
            "end": places,
        }
        fired = np.where(t >= K, 0.5, 0.0)
        frames.append(pd.DataFrame({**columns, **dict.fromkeys(DRAWN, 1.0), "fired": fired}))
    return pd.DataFrame(answers), pd.concat(frames, ignore_index=True)


EXAMPLES = [example("a", "car"), example("b")]


def test_labels_are_at_the_token_of_a_words_first_letter():
    judged = judge(*tables(), EXAMPLES, scenes.vocabulary(), K)
    words = judged.tokens[judged.tokens.label != "other"]
    assert list(zip(words.id, words.position, words.label, strict=True)) == [
        ("a", 2, "grounded"),
        ("a", 6, "hallucinated"),
        ("b", 5, "hallucinated"),
    ]


def test_a_word_of_several_tokens_is_labelled_once_and_a_cut_one_not_at_all():
    # " ho" and "use" end at 20 and 23; of b's answer only the first five tokens are there
    rows = tables(a=[1, 5, 9, 10, 12, 17, 20, 23], b=ENDS["b"][:5])
    judged = judge(*rows, EXAMPLES, scenes.vocabulary(), K)
    words = judged.tokens[judged.tokens.label != "other"]
    assert list(zip(words.id, words.position, strict=True)) == [("a", 2), ("a", 6)]


def test_metrics_by_hand():
    judged = judge(*tables(), EXAMPLES, scenes.vocabulary(), K)
    assert judged.metrics["chair_i"] == pytest.approx(100 * 2 / 3)  # house and b's car, of 3 words
    assert judged.metrics["hal"] == 100 and judged.metrics["length"] == 7
    assert judged.responses.hallucinated.tolist() == [["house"], ["car"]]
    assert judged.responses.marked[0] == "a red car, a blue **house**"
    assert "fire_rate" not in judged.metrics


def test_the_fire_rate_counts_tokens_after_the_anchor():
    judged = judge(*tables(steered=True), EXAMPLES, scenes.vocabulary(), K)
    assert judged.metrics["fire_rate"] == pytest.approx(50.0)
