"""What there is to know of a pair file before anybody trains on it: `report.json`, and in words.

Counted while the pairs are written, from digests of their texts and pictures.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from adapt.preference.likelihood import Likelihood
from adapt.preference.pairs import Pair

BIASED = 0.8  # share of pairs in which one side is the longer one: it can be told by length alone


class Tally:
    """Counts pairs as they pass.

    Args:
        tokens: how many tokens an answer has.
    """

    def __init__(self, tokens: Callable[[str], int]) -> None:
        self._tokens = tokens
        self.pairs = self.known_scores = self.not_higher = 0
        self.duplicates = self.equal = self.contradictory = 0
        self.chosen_longer = self.rejected_longer = self.more_tokens = 0
        self.more_words = 0  # pairs whose rejected answer has more words
        self.gap = 0.0
        self.kinds, self.sources = Counter[str](), Counter[str]()
        self._pictures = Counter[bytes]()
        self._seen: set[tuple[bytes, bytes, bytes]] = set()

    def passing(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
        """The same pairs, counted."""
        for pair in pairs:
            self._add(pair)
            yield pair

    def _add(self, pair: Pair) -> None:
        self.pairs += 1
        self.kinds[pair.kind] += 1
        self.sources[pair.source] += 1
        # 1. Length: what tells the answers apart without being read.
        more = self._tokens(pair.chosen) - self._tokens(pair.rejected)
        self.more_tokens += more
        self.chosen_longer += more > 0
        self.rejected_longer += more < 0
        self.more_words += len(pair.rejected.split()) > len(pair.chosen.split())
        # 2. Scores, where somebody gave some.
        if pair.chosen_score is not None and pair.rejected_score is not None:
            self.known_scores += 1
            self.gap += pair.chosen_score - pair.rejected_score
            self.not_higher += pair.chosen_score <= pair.rejected_score
        # 3. The same twice, the other way round, and twice the same answer.
        pictures = _digest(*pair.images)
        self._pictures[pictures] += 1
        asked = _digest(pictures, repr((pair.history, pair.question)).encode())
        asked = _digest(asked, *pair.rejected_images)
        chosen, rejected = (_digest(side.strip().encode()) for side in (pair.chosen, pair.rejected))
        self.equal += chosen == rejected
        self.duplicates += (asked, chosen, rejected) in self._seen
        self.contradictory += chosen != rejected and (asked, rejected, chosen) in self._seen
        self._seen.add((asked, chosen, rejected))

    def content(self) -> dict[str, Any]:
        """The figures, for `report.json`."""
        n = max(self.pairs, 1)
        scores: dict[str, float] = {"pairs": self.known_scores, "not_higher": self.not_higher}
        if self.known_scores:
            scores["mean_gap"] = self.gap / self.known_scores
        return {
            "pairs": self.pairs,
            "sources": dict(self.sources),
            "kinds": dict(self.kinds),
            "pictures": {
                "different": len(self._pictures),
                "pairs_each": self.pairs / max(len(self._pictures), 1),
                "most_pairs": max(self._pictures.values(), default=0),
            },
            "length": {
                "chosen_longer": self.chosen_longer / n,
                "rejected_longer": self.rejected_longer / n,
                "chosen_minus_rejected_tokens": self.more_tokens / n,
            },
            "duplicates": self.duplicates,
            "equal_answers": self.equal,
            "contradictory": self.contradictory,
            "scores": scores,
        }

    def warnings(self) -> list[str]:
        """What of it may spoil a training, in words."""
        n, found = max(self.pairs, 1), []
        for side, count in (("chosen", self.chosen_longer), ("rejected", self.rejected_longer)):
            if count / n > BIASED:
                share = f"the {side} answer is the longer one in {count / n:.0%} of the pairs"
                found.append(f"{share}: training may learn the length alone")
        counted = (
            (self.contradictory, "contradict another one about the same pictures and question"),
            (self.duplicates, "repeat another one, which counts twice"),
            (self.equal, "have one answer twice and teach no preference"),
            (self.not_higher, "chose an answer without the higher score"),
        )
        return found + [f"pairs that {what}: {count}" for count, what in counted if count]


def report(tally: Tally, likelihood: Likelihood | None) -> dict[str, Any]:
    """The content of `report.json`."""
    content, warnings = tally.content(), tally.warnings()
    if likelihood is not None:
        content["log_probability_per_token"] = vars(likelihood)
        content["meaning"] = likelihood.sentence()
        warnings += [warning for warning in (likelihood.warning(),) if warning]
    return content | {"warnings": warnings}


def lines(content: dict[str, Any]) -> list[str]:
    """The report in words, a line each; warnings last."""
    length, pictures = content["length"], content["pictures"]
    each = f"{pictures['pairs_each']:.1f} pairs a picture, {pictures['most_pairs']} at most"
    longer = f"the rejected answer is the longer one in {length['rejected_longer']:.0%} of them"
    more = f"the chosen one has {length['chosen_minus_rejected_tokens']:+.1f} tokens on average"
    said = [
        f"{content['pairs']} pairs on {pictures['different']} pictures ({each}); {longer}, {more}"
    ]
    said += [content["meaning"]] if "meaning" in content else []
    return said + [f"warning: {warning}" for warning in content["warnings"]]


def metrics(content: dict[str, Any]) -> dict[str, float]:
    """What is logged of given pairs."""
    likely = content.get("log_probability_per_token", {})
    named = {f"{name}_log_prob": likely[name] for name in ("chosen", "rejected", "own") if likely}
    counts = {name: content[name] for name in ("duplicates", "equal_answers", "contradictory")}
    more = {"more_tokens": content["length"]["chosen_minus_rejected_tokens"]}
    return {key: float(value) for key, value in {**named, **counts, **more}.items()}


def written(content: dict[str, Any]) -> str:
    """The text of `report.json`."""
    return json.dumps(content, indent=2) + "\n"


def _digest(*parts: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()
