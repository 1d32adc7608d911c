"""What there is to know of a pair file before anybody trains on it: `report.json`, and in words.

Counted while the pairs are written, from digests of their texts and pictures.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from adapt.pairs.annotate import Reason
from adapt.pairs.likelihood import Likelihood
from adapt.pairs.table import Pair, Span

BIASED = 0.8  # share of pairs in which one side is the longer one: it can be told by length alone


class Tally:
    """Counts pairs as they pass.

    Args:
        tokens: how many tokens an answer has.
        inside: how many of them stand for characters of spans; None where it cannot be told.
    """

    def __init__(
        self,
        tokens: Callable[[str], int],
        inside: Callable[[str, Sequence[Span]], int | None],
    ) -> None:
        self._tokens, self._inside = tokens, inside
        self.pairs = self.known_scores = self.not_higher = 0
        self.duplicates = self.equal = self.contradictory = 0
        self.chosen_longer = self.rejected_longer = self.more_tokens = 0
        self.more_words = 0  # pairs whose rejected answer has more words
        self.gap = 0.0
        self.begun = self.begun_tokens = 0  # pairs with a prefix, and its tokens
        self.left = Counter[Reason]()  # rows without a pair, by the key that took them
        self.kinds, self.sources = Counter[str](), Counter[str]()
        self._all, self._deciding = Counter[str](), Counter[str]()  # tokens of each side
        self.mentions = self.placed = self.placed_pairs = 0
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
        self.begun += bool(pair.prefix)
        self.begun_tokens += self._tokens(pair.prefix) if pair.prefix else 0
        # 2. What decides, in tokens.
        for side in ("chosen", "rejected"):
            text, spans = getattr(pair, side), getattr(pair, f"{side}_spans")
            if (deciding := self._inside(text, spans)) is not None:
                self._all[side] += self._tokens(text)
                self._deciding[side] += deciding
        # 3. Where the things are that the chosen answer names.
        placed = sum(bool(place.boxes) for place in pair.places)
        self.mentions, self.placed = self.mentions + len(pair.places), self.placed + placed
        self.placed_pairs += placed > 0
        # 4. Scores, where somebody gave some.
        if pair.chosen_score is not None and pair.rejected_score is not None:
            self.known_scores += 1
            self.gap += pair.chosen_score - pair.rejected_score
            self.not_higher += pair.chosen_score <= pair.rejected_score
        # 5. The same twice, the other way round, and twice the same answer.
        pictures = _digest(*pair.images)
        self._pictures[pictures] += 1
        asked = _digest(pictures, repr((pair.history, pair.question)).encode())
        asked = _digest(asked, *pair.rejected_images)
        chosen, rejected = (_digest(side.strip().encode()) for side in (pair.chosen, pair.rejected))
        self.equal += chosen == rejected
        self.duplicates += (asked, chosen, rejected) in self._seen
        self.contradictory += chosen != rejected and (asked, rejected, chosen) in self._seen
        self._seen.add((asked, chosen, rejected))

    def inside(self) -> dict[str, float]:
        """The share of tokens of each side that decide; nothing where it cannot be told."""
        shares = {side: self._deciding[side] / max(n, 1) for side, n in self._all.items()}
        return {f"{side}_inside": share for side, share in shares.items()}

    def content(self) -> dict[str, Any]:
        """The figures, for `report.json`."""
        n = max(self.pairs, 1)
        scores: dict[str, float] = {"pairs": self.known_scores, "not_higher": self.not_higher}
        if self.known_scores:
            scores["mean_gap"] = self.gap / self.known_scores
        return {
            "pairs": self.pairs,
            "yield": self.pairs / max(self.pairs + self.left.total(), 1),
            "left_out": dict(sorted(self.left.items())),
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
            "deciding_tokens": self.inside(),
            "prefix": {"pairs": self.begun / n, "tokens": self.begun_tokens / n},
            "places": {
                "mentions": self.mentions,
                "with_boxes": self.placed,
                "pairs_with_boxes": self.placed_pairs / n,
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
    if inside := content["deciding_tokens"]:
        shares = [
            f"{inside[f'{side}_inside']:.0%} of the {side}" for side in ("chosen", "rejected")
        ]
        said.append(f"what decides is {' and '.join(shares)} answers' tokens")
    if left := content["left_out"]:
        took = ", ".join(f"{count} by pairs.{reason}" for reason, count in left.items())
        said.append(f"rows without a pair: {took}")
    if share := content["prefix"]["pairs"]:
        tokens = f"{content['prefix']['tokens']:.1f} tokens of a pair"
        said.append(f"{share:.0%} begin alike; what is shared, {tokens}, is not trained on")
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
