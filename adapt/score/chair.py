"""CHAIR of free captions (arXiv 1809.02156): which objects a caption names that are not there.

A caption becomes lower-case words, each in a base form; two words that mean one object are joined;
what is then in the synonym list is a mention, of the object that begins its line, repeats included.
Over all captions, as fractions:

    chair_s = captions with a hallucinated mention / captions
    chair_i = hallucinated mentions / mentions
    recall  = true objects mentioned / true objects

The official code is said to be one, but its descendants differ in the base form, and so in their
metrics:

    maxlinn   every word without its plural, `plurals` (github.com/Maxlinn/CHAIR-metric-standalone):
              "bus" is no bus
    opera     WordNet's lemma for the word's tag (github.com/shikiw/OPERA, chair.py): "men" are
              nobody

`strict` mode takes the word itself where the list has it, then its base form or plain singular,
joins all phrases of the list, leaves out what a negation reaches, and reads a list entry with a
stray blank or capital (" motor bike", "iPhone": the official code never finds them). Nothing
divided by nothing is 0; the official code stops there.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, NamedTuple

from adapt.params import InputError
from adapt.score.content import read_text, shown
from adapt.score.scored import Mode, Scored, per_image, pooled
from adapt.score.text import english
from adapt.score.text.negation import negated
from adapt.score.text.plurals import singular
from adapt.score.text.pool import read_each

Variant = Literal["opera", "maxlinn"]
Captions = Sequence[tuple[str, str]]  # an image's id and what is said about it
Truth = Mapping[str, Collection[str]]  # the objects of each image
OWN_LIST = Path(__file__).parent / "words" / "objects.txt"

_ANIMALS = "bird cat dog horse sheep cow elephant bear zebra giraffe animal cub"
# Two words and what they become, beside the list's own phrases: "a baby elephant" names no person.
_JOINED = {
    **{f"{age} {animal}": animal for age in ("baby", "adult") for animal in _ANIMALS.split()},
    **{f"passenger {vehicle}": vehicle for vehicle in ("jet", "train")},
    **{phrase: phrase for phrase in ("home plate", "train track")},
    "bow tie": "tie",
    "toilet seat": "toilet",
    "wine glas": "wine glass",  # what `plurals` makes of it
}
_NOT_JOINED = "dining table"  # the official code forgets it; its "table" is found alone
# A tag's first letter; all else is lemmatised as a noun.
_PARTS: dict[str, english.Part] = {"J": "a", "V": "v", "R": "r"}


@dataclass(frozen=True)
class Synonyms:
    """A synonym list: a word as the file has it to its object, the first of its line."""

    name: str
    owner: Mapping[str, str]

    @cached_property
    def mended(self) -> dict[str, str]:
        """The same without stray blanks and capitals."""
        return {" ".join(word.lower().split()): name for word, name in self.owner.items()}

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
        phrases = (*self.mended, *self.phrases, "seat")
        return frozenset(part for phrase in phrases for part in phrase.split())

    def true(self, names: Collection[str]) -> set[str]:
        """The objects that are in an image, from the words of this list that its truth uses."""
        return {self.mended.get(name, name) for name in names}


class Mentions(NamedTuple):
    """A caption's words that mean objects, their objects, its length (joined words are one)."""

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


_METRICS = {
    "chair_s": ("num_hallucinated_caps", "num_caps"),
    "chair_i": ("hallucinated_word_count", "coco_word_count"),
    "recall": ("num_recall_gt_objects", "num_gt_objects"),
    "length": ("len_caps", "num_caps"),
}


def read_synonyms(path: Path) -> Synonyms:
    """A file with a line an object, its words parted by a comma and a blank, its name first."""
    owner: dict[str, str] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = [word for word in line.strip().split(", ") if word.strip()]
        if any("," in word for word in words):
            problem = "put a blank after each comma, as in dog, puppy, terrier"
            raise InputError(f"{path} row {number}: {problem}")
        owner |= {word: words[0] for word in words}
    if not owner:
        example = "a line is an object and its synonyms: dog, puppy, terrier"
        raise InputError(f"{path}: is empty; {example}")
    return Synonyms(path.name, owner)


def mentions(caption: str, synonyms: Synonyms, variant: Variant, mode: Mode) -> Mentions:
    """The objects that a caption names, in order, repeats included.

    "Two hot dogs, no dog, but puppies." gives hot dog, dog, dog; in strict mode hot dog, dog.
    """
    # 1. Lower-case words and marks, then each one's base form.
    words = english.words(caption.lower())
    bases = list(map(singular, words)) if variant == "maxlinn" else _lemmas(words)
    owner, phrases, longest = synonyms.owner, synonyms.pairs, 2
    if mode == "strict":
        # 2. Strict: nothing under a negation, and the form that the list has before the base form.
        reached = zip(words, bases, negated(words), strict=True)
        bases = ["" if no else _listed(word, base, synonyms.parts) for word, base, no in reached]
        owner, phrases, longest = synonyms.mended, synonyms.phrases, 3
    # 3. Words that are one object become one word, which also shortens the caption.
    joined = [word for word, _ in join(bases, phrases, longest)]
    # 4. What the list knows is a mention; but "the seat of the toilet" is no chair.
    seated = "toilet" in joined and "seat" in joined
    named = [word for word in joined if word in owner and not (seated and word == "seat")]
    return Mentions(named, [owner[word] for word in named], len(joined))


def _lemmas(words: Sequence[str]) -> list[str]:
    tagged = zip(words, english.tags(words), strict=True)
    return [english.lemma(word, _PARTS.get(tag[0], "n")) for word, tag in tagged]


def _listed(word: str, base: str, parts: Collection[str]) -> str:
    """The form of a word that the list has, or its base form."""
    forms = (word, base, singular(word), word.removesuffix("s"))
    return next((form for form in forms if form in parts), base)


def join(words: Sequence[str], phrases: Mapping[str, str], longest: int) -> list[tuple[str, int]]:
    """Join from the left, longer phrases first; each word with the number of words that it was.

    >>> phrases = {"stop sign": "stop sign", "bow tie": "tie"}
    >>> join(["a", "stop", "sign", "bow", "tie"], phrases, longest=2)
    [('a', 1), ('stop sign', 2), ('tie', 2)]
    """
    joined, start = [], 0
    while start < len(words):
        # The longest phrase that begins here; a word of a phrase begins no other one, so that
        # "hot dog bed" is a hot dog and a bed.
        sizes = range(min(longest, len(words) - start), 1, -1)
        size = next((n for n in sizes if " ".join(words[start : start + n]) in phrases), 1)
        phrase = " ".join(words[start : start + size])
        joined.append((phrases[phrase] if size > 1 else phrase, size))
        start += size
    return joined


def score(
    captions: Captions, truth: Truth, synonyms: Synonyms, variant: Variant, mode: Mode
) -> Scored:
    """CHAIR of captions; `length` is words a caption.

    Two captions. "A dog." of an image with a dog and a cat; "A dog, two cats." of one with a dog: 1
    of 2 captions and 1 of 3 mentions are hallucinated, 2 of 3 objects recalled: chair_s 0.5,
    chair_i 0.333, recall 0.667, length 4.5.
    """
    for image, _ in captions:
        if image not in truth:
            name = f"image_id {shown(image)}"
            raise InputError(f"{name}: the ground truth does not list this image")
    read = partial(mentions, synonyms=synonyms, variant=variant, mode=mode)
    named = [(f"image_id {shown(image)}", caption) for image, caption in captions]
    # The bootstrap draws images: the captions of one image are one row.
    images = [image for image, _ in captions]
    true = (synonyms.true(truth[image]) for image in images)
    counted = map(_count, read_each(read, named), true)
    column = per_image(Counted._fields, zip(images, counted, strict=True))
    ratios = {name: (column[above], column[below]) for name, (above, below) in _METRICS.items()}
    counts = {name: int(values.sum()) for name, values in column.items()}
    return Scored(pooled(ratios), counts, ratios, _variant(synonyms, variant, mode))


def _count(mentioned: Mentions, true: Collection[str]) -> Counted:
    hallucinated = sum(name not in true for name in mentioned.objects)
    return Counted(
        num_caps=1,
        num_hallucinated_caps=int(hallucinated > 0),
        coco_word_count=len(mentioned.objects),
        hallucinated_word_count=hallucinated,
        num_gt_objects=len(true),
        num_recall_gt_objects=len(set(mentioned.objects).intersection(true)),
        len_caps=mentioned.length,
    )


def _variant(synonyms: Synonyms, variant: Variant, mode: Mode) -> dict[str, str]:
    size = f"{len(set(synonyms.owner.values()))} objects, {len(synonyms.owner)} words"
    common = {"benchmark": "chair", "mode": mode, "variant": variant}
    common |= {"tokenizer": english.TOKENIZER, "synonyms": f"{synonyms.name}, {size}"}
    return common | (english.TAGS_AND_LEMMAS if variant == "opera" else {})
