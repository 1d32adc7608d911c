"""CHAIR of free captions (arXiv 1809.02156): which objects a caption names that are not in the
image.

A caption becomes lower-case words, each in a base form; two words that mean one object are joined;
what is then in the synonym list is a mention, of the object that begins its line, repeats included.
Over all captions, as fractions:

    chair_s = captions with a hallucinated mention / captions
    chair_i = hallucinated mentions / mentions          recall = true objects mentioned / true objects

The official code is said to be one, but its descendants differ in the base form, and so in their
figures:

    maxlinn   every word without its plural, `plurals` (github.com/Maxlinn/CHAIR-metric-standalone): "bus" is no bus
    opera     WordNet's lemma for the word's tag (github.com/shikiw/OPERA, chair.py): "men" are nobody

`strict` mode takes the word itself where the list has it, then its base form or plain singular,
joins all phrases of the list, leaves out what a negation reaches, and reads a list entry with a
stray blank or capital (" motor bike", "iPhone": the official code never finds them). Nothing
divided by nothing is 0; the official code stops there.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from adapt.metrics.scored import Mode, Scored
from adapt.params import InputError
from adapt.score import rows
from adapt.score.text import tagger, tokens, wordnet
from adapt.score.text.negation import negated
from adapt.score.text.plurals import singular

Variant = Literal["opera", "maxlinn"]
OWN_LIST = Path(__file__).parent / "words" / "objects.txt"

_ANIMALS = (
    "bird",
    "cat",
    "dog",
    "horse",
    "sheep",
    "cow",
    "elephant",
    "bear",
    "zebra",
    "giraffe",
    "animal",
    "cub",
)
# Two words and what they become, beside the list's own phrases: "a baby elephant" names no person.
_JOINED = {
    **{f"{age} {animal}": animal for age in ("baby", "adult") for animal in _ANIMALS},
    **{f"passenger {vehicle}": vehicle for vehicle in ("jet", "train")},
    **{phrase: phrase for phrase in ("home plate", "train track")},
    "bow tie": "tie",
    "toilet seat": "toilet",
    "wine glas": "wine glass",  # what `plurals` makes of it
}
_NOT_JOINED = "dining table"  # the official code forgets it; its "table" is found alone
_PARTS: dict[str, wordnet.Part] = {
    "J": "a",
    "V": "v",
    "R": "r",
}  # the tag's first letter; all else is a noun


@dataclass(frozen=True)
class Synonyms:
    """A synonym list: a word as the file has it to its object, the first of its line."""

    name: str
    owner: Mapping[str, str]

    @cached_property
    def mended(self) -> dict[str, str]:
        """The same without stray blanks and capitals."""
        return {" ".join(word.lower().split()): thing for word, thing in self.owner.items()}

    @cached_property
    def phrases(self) -> dict[str, str]:
        """What strict mode joins, and what it then is: all phrases of the list."""
        return {**{word: word for word in self.mended if " " in word}, **_JOINED}

    @cached_property
    def pairs(self) -> dict[str, str]:
        """What official mode joins: phrases of two words, less one."""
        return {phrase: word for phrase, word in self.phrases.items() if phrase != _NOT_JOINED}

    @cached_property
    def parts(self) -> frozenset[str]:
        """All words that matter alone or in a phrase."""
        return frozenset(
            part for phrase in (*self.mended, *self.phrases, "seat") for part in phrase.split()
        )


class Mentions(NamedTuple):
    """The words of a caption that mean objects, their objects, and its number of words, joined ones
    being one.
    """

    words: list[str]
    objects: list[str]
    length: int


class Counted(NamedTuple):
    """One caption, or the captions of one image, under the names of the official variables."""

    num_caps: int
    num_hallucinated_caps: int
    coco_word_count: int
    hallucinated_word_count: int
    num_gt_objects: int
    num_recall_gt_objects: int
    len_caps: int


def read_synonyms(path: Path) -> Synonyms:
    """A file with a line for each object, its words separated by a comma and a blank, the object's
    name first.
    """
    owner: dict[str, str] = {}
    for number, line in enumerate(rows.read_text(path).splitlines(), 1):
        words = [word for word in line.strip().split(", ") if word.strip()]
        if any("," in word for word in words):
            raise InputError(
                f"{path} row {number}: put a blank after each comma, as in dog, puppy, terrier"
            )
        owner |= {word: words[0] for word in words}
    if not owner:
        raise InputError(
            f"{path}: is empty; a line is an object and its synonyms: dog, puppy, terrier"
        )
    return Synonyms(path.name, owner)


def mentions(caption: str, synonyms: Synonyms, variant: Variant, mode: Mode) -> Mentions:
    """The objects that a caption names, in order, repeats included.

    >>> listed = Synonyms("", {"dog": "dog", "puppy": "dog", "hot dog": "hot dog"})
    >>> mentions("Two hot dogs, no dog, but puppies.", listed, "maxlinn", "official")[:2]
    (['hot dog', 'dog', 'puppy'], ['hot dog', 'dog', 'dog'])
    >>> mentions("Two hot dogs, no dog, but puppies.", listed, "maxlinn", "strict")[:2]
    (['hot dog', 'puppy'], ['hot dog', 'dog'])
    """
    words = tokens.words(caption.lower())
    bases = list(map(singular, words)) if variant == "maxlinn" else _lemmas(words)
    owner, phrases, longest = synonyms.owner, synonyms.pairs, 2
    if mode == "strict":
        rows = zip(words, bases, negated(words), strict=True)
        bases = ["" if gone else _listed(word, base, synonyms.parts) for word, base, gone in rows]
        owner, phrases, longest = synonyms.mended, synonyms.phrases, 3
    joined = _join(bases, phrases, longest)
    seated = "toilet" in joined and "seat" in joined  # "the seat of the toilet" is no chair
    found = [word for word in joined if word in owner and not (seated and word == "seat")]
    return Mentions(found, [owner[word] for word in found], len(joined))


def _lemmas(words: Sequence[str]) -> list[str]:
    tagged = zip(words, tagger.load().tag(words), strict=True)
    return [wordnet.load(_PARTS.get(tag[0], "n")).lemma(word) for word, tag in tagged]


def _listed(word: str, base: str, parts: Collection[str]) -> str:
    """The form of a word that the list has, or its base form."""
    forms = (word, base, singular(word), word.removesuffix("s"))
    return next((form for form in forms if form in parts), base)


def _join(words: Sequence[str], phrases: Mapping[str, str], longest: int) -> list[str]:
    """Join from the left, longer phrases first.

    >>> _join(["a", "stop", "sign", "bow", "tie"], {"stop sign": "stop sign", "bow tie": "tie"}, longest=2)
    ['a', 'stop sign', 'tie']
    """
    joined, start = [], 0
    while start < len(words):
        sizes = range(min(longest, len(words) - start), 1, -1)
        size = next((n for n in sizes if " ".join(words[start : start + n]) in phrases), 1)
        phrase = " ".join(words[start : start + size])
        joined.append(phrases[phrase] if size > 1 else phrase)
        start += size
    return joined


def score(
    captions: Sequence[tuple[str, str]],
    truth: Mapping[str, Collection[str]],
    synonyms: Synonyms,
    variant: Variant,
    mode: Mode,
) -> Scored:
    """CHAIR of (image id, caption) pairs; `truth` has the objects of each image. `length` is words
    a caption.

    Two captions. "A dog." of an image with a dog and a cat; "A dog, two cats." of one with a dog: 1
    of 2 captions and 1 of 3 mentions hallucinated, 2 of 3 objects recalled.

    >>> listed = Synonyms("", {"dog": "dog", "cat": "cat"})
    >>> captions = [("1", "A dog."), ("2", "A dog, two cats.")]
    >>> scored = score(captions, {"1": ["dog", "cat"], "2": ["dog"]}, listed, "maxlinn", "official")
    >>> {name: round(value, 3) for name, value in scored.metrics.items()}
    {'chair_s': 0.5, 'chair_i': 0.333, 'recall': 0.667, 'length': 4.5}
    """
    images: dict[str, Counted] = {}
    for image, caption in captions:
        if image not in truth:
            raise InputError(
                f"image_id {rows.shown(image)}: the ground truth does not list this image"
            )
        try:
            found = mentions(caption, synonyms, variant, mode)
        except tokens.Unreadable as error:
            raise InputError(f"image_id {rows.shown(image)}: {error}") from None
        one = _count(found, truth[image], synonyms)
        images[image] = Counted(*map(sum, zip(images.get(image, _NOTHING), one, strict=True)))
    table = np.array(list(images.values()), dtype=np.int64).reshape(-1, len(Counted._fields))
    counts = dict(zip(Counted._fields, map(int, table.sum(0)), strict=True))
    column = dict(zip(Counted._fields, table.T, strict=True))
    return Scored(
        metrics={
            name: _share(counts[above], counts[below]) for name, (above, below) in _METRICS.items()
        },
        counts=counts,
        ratios={name: (column[above], column[below]) for name, (above, below) in _METRICS.items()},
        variant=_variant(synonyms, variant, mode),
    )


_NOTHING = Counted(0, 0, 0, 0, 0, 0, 0)
_METRICS = {
    "chair_s": ("num_hallucinated_caps", "num_caps"),
    "chair_i": ("hallucinated_word_count", "coco_word_count"),
    "recall": ("num_recall_gt_objects", "num_gt_objects"),
    "length": ("len_caps", "num_caps"),
}


def _count(found: Mentions, objects: Collection[str], synonyms: Synonyms) -> Counted:
    there = {synonyms.mended.get(name, name) for name in objects}
    hallucinated = sum(name not in there for name in found.objects)
    recalled = len(there.intersection(found.objects))
    return Counted(
        1,
        int(hallucinated > 0),
        len(found.objects),
        hallucinated,
        len(there),
        recalled,
        found.length,
    )


def _share(above: int, below: int) -> float:
    return above / below if below else 0.0


def _variant(synonyms: Synonyms, variant: Variant, mode: Mode) -> dict[str, str]:
    named = {"benchmark": "chair", "mode": mode, "variant": variant, "tokenizer": tokens.describe()}
    named["synonyms"] = (
        f"{synonyms.name}, {len(set(synonyms.owner.values()))} objects, {len(synonyms.owner)} words"
    )
    return named | ({"tagger": tagger.RESOURCE, "lemmas": "WordNet"} if variant == "opera" else {})
