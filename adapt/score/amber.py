"""AMBER (arXiv 2311.07397): hallucination in descriptions and answers, from AMBER's own folder.

The folder is `data/` of github.com/junyangwang0410/AMBER as it comes: `annotations.json`,
`relation.json`, `safe_words.txt`, `metrics.txt` and, for intervals over images,
`query/query_all.json`. `score` takes each response by the type of its annotation: descriptions go
to `amber_generative`, answers to `amber_discriminative`, and where both are there the AMBER score
is (100 - CHAIR + F1) / 2.

Official near-synonyms are words whose spaCy vectors have a cosine above 0.8. The vocabulary is
closed, so a list of such pairs says all that the vectors say; without one a word is similar to
itself alone.

    amber = Amber.read(Path("AMBER/data"), similarity=None, lemmas=None)
    scored = score({1: "A dog.", 1005: "Yes"}, amber, "official")
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from adapt.params import InputError
from adapt.score import amber_discriminative as discriminative
from adapt.score import amber_generative as generative
from adapt.score import rows
from adapt.score.content import list_of_texts, read_json, read_text, shown
from adapt.score.layout import AMBER_ANNOTATIONS, AMBER_QUERIES
from adapt.score.scored import Mode, Ratio, Scored
from adapt.score.text import english, nouns
from adapt.score.text.pool import read_each

GENERATIVE = "generative"
_FILES = "annotations.json relation.json safe_words.txt metrics.txt query/query_all.json"
FILES = tuple(_FILES.split())
_THRESHOLD = 0.8  # the official --similarity_score


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """What one id asks for: a description's objects and likely hallucinations, or an answer."""

    type: str
    truth: tuple[str, ...]  # of a question: ("yes",) or ("no",)
    targets: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Amber:
    """The benchmark's tables, and the two that stand in for its language tools."""

    annotations: Mapping[int, Annotation]
    words: generative.Words
    start: Mapping[str, float]  # the counters' first values, metrics.txt
    images: Mapping[int, str]  # which image an id asks about; a missing id stands for itself
    similarity_name: str
    lemmas: nouns.Lemmas

    @classmethod
    def read(cls, folder: Path, similarity: Path | None, lemmas: Path | None) -> "Amber":
        """Read AMBER's folder, and JSON of similar pairs and of lemmas (None: NLTK's WordNet)."""
        associated = _lists(folder / "relation.json")
        pairs = _pairs(similarity) if similarity else set()
        name = f"{similarity.name}, {len(pairs)} pairs" if similarity else "equal words only"
        similar = frozenset(pairs | {(b, a) for a, b in pairs})
        annotations = _annotations(folder / "annotations.json", associated)
        safe = frozenset(read_text(folder / "safe_words.txt").splitlines())
        start, asked = _start(folder / "metrics.txt"), folder / "query" / "query_all.json"
        queries = rows.read(asked, layout=AMBER_QUERIES) if asked.is_file() else []
        return cls(
            annotations=annotations,
            words=generative.Words(associated, safe, similar),
            start=start,
            images={row.whole("id"): row.text("image") for row in queries},
            similarity_name=name,
            lemmas=_lemmas(lemmas) if lemmas else nouns.WORDNET,
        )

    @cached_property
    def vocabulary(self) -> dict[str, str]:
        """All words that count: lower case to AMBER's spelling."""
        associated = self.words.associated
        words = {*associated, *(word for others in associated.values() for word in others)}
        return {word.lower(): word for word in sorted(words)}

    def tasks(self) -> dict[str, set[int]]:
        """The ids of the descriptions, and those of the questions."""
        described = {n for n, note in self.annotations.items() if note.type == GENERATIVE}
        return {"descriptions": described, "questions": self.annotations.keys() - described}

    def pictures(self) -> list[tuple[str, str]]:
        """The picture of each description, and the id that goes with it."""
        own = self.tasks()["descriptions"]
        return [(self.images.get(number, f"AMBER_{number}.jpg"), str(number)) for number in own]

    def mentioned(self, described: Mapping[int, str], mode: Mode) -> list[list[str]]:
        """The vocabulary nouns of each description, in order and with repeats."""
        named = [(f"id {number}", text) for number, text in described.items()]
        if mode == "strict":
            stated = partial(nouns.stated, lemmas=self.lemmas, vocabulary=self.vocabulary)
            return read_each(stated, named)
        spelled = set(self.vocabulary.values())
        every = read_each(partial(nouns.nouns, lemmas=self.lemmas), named)
        return [[noun for noun in lemmas if noun in spelled] for lemmas in every]


def score(responses: Mapping[int, str], amber: Amber, mode: Mode) -> Scored:
    """All metrics that the responses allow: of descriptions, of answers, and the AMBER score.

    `metrics` are percentages with one decimal, and `length`, the words of a description on average.
    """
    for number in responses:
        if number not in amber.annotations:
            raise InputError(f"id {number}: AMBER has no annotation of this id")
    described = {n: t for n, t in responses.items() if amber.annotations[n].type == GENERATIVE}
    asked = {n: text for n, text in responses.items() if n not in described}
    totals = {name: value if mode == "official" else 0.0 for name, value in amber.start.items()}
    metrics: dict[str, float] = {}
    ratios: dict[str, Ratio] = {}
    if described:
        counted = _described(described, amber, mode)
        _add(totals, (one._asdict() for one in counted))
        metrics |= generative.rates(totals)
        metrics["length"] = sum(len(text.split()) for text in described.values()) / len(described)
        ratios |= generative.ratios(counted)
    if asked:
        notes = [amber.annotations[n] for n in asked]
        kinds = [note.type for note in notes]
        truths = [note.truth[0] for note in notes]
        answered = list(map(partial(discriminative.count, mode=mode), asked.values(), truths))
        _add(totals, map(discriminative.counters, kinds, answered))
        metrics |= discriminative.rates(totals, mode)
        images = [amber.images.get(n, str(n)) for n in asked]
        ratios |= discriminative.ratios(kinds, answered, images)
    if described and asked:
        metrics["amber_score"] = round((100 - metrics["chair"] + metrics["f1"]) / 2, 2)
    counts = {name: int(value) for name, value in totals.items()}
    return Scored(metrics, counts, ratios, _variant(amber, mode, bool(described)))


def _described(described: Mapping[int, str], amber: Amber, mode: Mode) -> list[generative.Counted]:
    notes = [amber.annotations[number] for number in described]
    return [
        generative.count(mentioned, note.truth, note.targets, amber.words)
        for mentioned, note in zip(amber.mentioned(described, mode), notes, strict=True)
    ]


def _add(totals: dict[str, float], counters: Iterable[Mapping[str, int]]) -> None:
    """Add one response after the other, as the official code does: its sums are of floats."""
    for one in counters:
        for name, value in one.items():
            totals[name] += value


def _variant(amber: Amber, mode: Mode, described: bool) -> dict[str, str]:
    variant = {"benchmark": "amber", "mode": mode}
    if described:
        variant |= {"similarity": amber.similarity_name, "lemmas": amber.lemmas.name}
        variant |= {"tokenizer": english.TOKENIZER, "tagger": english.TAGGER}
    return variant


def _annotations(path: Path, associated: Mapping[str, object]) -> dict[int, Annotation]:
    annotations = {}
    for row in rows.read(path, layout=AMBER_ANNOTATIONS):
        kind = row.text("type")
        if kind == GENERATIVE:
            truth, targets = tuple(row.texts("truth")), tuple(row.texts("hallu"))
            for word in truth + targets:
                if word not in associated:
                    raise row.error(f"{shown(word)} is no key of relation.json")
        elif kind in discriminative.PREFIXES:
            truth, targets = (row.choice("truth", ("yes", "no")),), ()
        else:
            raise row.error(f"type {shown(kind)} is none of AMBER's")
        annotations[row.whole("id")] = Annotation(type=kind, truth=truth, targets=targets)
    return annotations


def _lists(path: Path) -> dict[str, list[str]]:
    lists = _object(path).items()
    return {word: list_of_texts(value, f"{path}: {word!r}") for word, value in lists}


def _object(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: is no JSON object")
    return content


def _start(path: Path) -> dict[str, float]:
    """The first value of each counter, `name=number` a line."""
    start = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        name, equals, value = line.partition("=")
        if equals:
            try:
                start[name.strip()] = float(value)
            except ValueError:
                raise InputError(f"{path} row {number}: {shown(value)} is no number") from None
    missing = (set(generative.Counted._fields) | discriminative.COUNTERS) - set(start)
    if missing:
        raise InputError(f"{path}: has no {min(missing)}=")
    return start


def _pairs(path: Path) -> set[tuple[str, str]]:
    """Pairs of similar words: a list of {"a", "b", "similarity"}, alone or under "pairs"."""
    content = read_json(path)
    pairs: Any = content.get("pairs") if isinstance(content, dict) else content
    try:
        return {(row["a"], row["b"]) for row in pairs if row.get("similarity", 1.0) > _THRESHOLD}
    except (TypeError, KeyError, AttributeError):
        form = '{"pairs": [{"a": word, "b": word, "similarity": number}, ...]}'
        raise InputError(f"{path}: expected {form}") from None


def _lemmas(path: Path) -> nouns.Lemmas:
    """A table of lemmas: an object of form to lemma, or one with such an object as "table"."""
    content = _object(path)
    table = content.get("table", content)
    if not isinstance(table, dict) or not all(isinstance(lemma, str) for lemma in table.values()):
        raise InputError(f'{path}: expected {{"table": {{form: lemma, ...}}}}')
    return nouns.Lemmas(table, f"{path.name}, {len(table)} forms")
