"""Object HalBench: COCO objects in descriptions, as RLHF-V scores them (arXiv 2312.00849;
eval_gpt_obj_halbench.py in https://github.com/RLHF-V/RLHF-V).

An object counts when it is one of COCO's 80, by a list of synonyms. Where it comes from is the
caller's:

    extracted   a language model has listed the objects of each caption. Of a phrase, a listed pair of words counts
                ("motor bike"), and else each run of nouns, so that "wooden table" is a table and
                "soccer ball" nothing; what is listed twice counts once, but "woman" and "man" are
                two persons
    plain       the caption's own words, repeats included; lemmatised by WordNet, which leaves "men" as it is

The published Response rate is `CHAIRs_refine`: captions with a hallucinated object / captions with
any object (not all captions). The published Mention rate is `CHAIRi`. An empty caption has a length
of one word.

The official code tags and lemmatises phrases with spaCy; here NLTK's tagger does, within "There is
a ... .", and a word that WordNet's texts use as an adjective at least half as often as as a noun is
no noun before another word. `strict` counts an object once, takes the last word of an unknown
compound, finds "men" and "scissors", and drops what is negated.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from adapt.metrics.scored import Mode, Ratio, Scored, ratio
from adapt.params import InputError
from adapt.score.chair import Synonyms
from adapt.score.text import tagger, tokens, wordnet
from adapt.score.text.negation import negated

_ENDINGS = ("s>", "ses>s", "ves>f", "xes>x", "zes>z", "ches>ch", "shes>sh", "men>man", "ies>y")
_IRREGULAR = {
    "children": "child",
    "mice": "mouse",
    "oxen": "ox",
    "knives": "knife",
    "calves": "calf",
}


@dataclass(frozen=True)
class Caption:
    """An image, what was said about it, and the objects listed by a language model (None: read the
    caption).
    """

    image: str
    text: str
    extracted: tuple[str, ...] | None


def mentioned(caption: Caption, synonyms: Synonyms, mode: Mode) -> list[str]:
    """The objects of a caption, in order, one for each mention that counts.

    "A wooden table, men and a bow tie", extracted as such, gives dining table, person and tie.
    """
    if caption.extracted is None:
        return [
            synonyms.mended[word] for word in known(_plain(caption.text, synonyms, mode), synonyms)
        ]
    found = [name for phrase in caption.extracted for name in _of_phrase(phrase, synonyms, mode)]
    objects = [synonyms.mended[word] for word in known(list(dict.fromkeys(found)), synonyms)]
    return objects if mode == "official" else list(dict.fromkeys(objects))


def score(
    captions: Sequence[Caption],
    truth: Mapping[str, Collection[str]],
    synonyms: Synonyms,
    mode: Mode,
) -> Scored:
    """The official figures, as fractions, from captions and the objects that are in each image.

    Three captions, of which one names no object. "A dog with a cat" hallucinates the cat; "dogs"
    are there. So 1 of 3 captions, 1 of 2 captions with an object and 1 of 3 mentions are wrong, and
    2 of 4 true objects are named.
    """
    objects = [mentioned(caption, synonyms, mode) for caption in captions]
    there = [
        {synonyms.mended.get(name, name) for name in truth[caption.image]} for caption in captions
    ]
    wrong = [
        sum(name not in own for name in names) for names, own in zip(objects, there, strict=True)
    ]
    covered = [len(own.intersection(names)) for names, own in zip(objects, there, strict=True)]
    bad, some = [int(count > 0) for count in wrong], [int(bool(names)) for names in objects]
    lengths, ones = (
        [len(caption.text.strip().split(" ")) for caption in captions],
        [1] * len(captions),
    )
    ratios = {
        "CHAIRs": ratio(bad, ones),
        "CHAIRs_refine": ratio(bad, some),
        "CHAIRi": ratio(wrong, [len(names) for names in objects]),
        "obj_rec": ratio(covered, [len(own) for own in there]),
        "avg_word_len": ratio(lengths, ones),
    }
    metrics = {name: _pooled(columns) for name, columns in ratios.items()}
    metrics |= {
        "correct_rate": 1 - metrics["CHAIRs_refine"],
        "object_correct_rate": 1 - metrics["CHAIRi"],
    }
    return Scored(
        metrics=metrics,
        counts={
            "sentence_num": len(captions),
            "coco_sentence_num": sum(some),
            "coco_word_count": sum(
                covered
            ),  # the official name for the true objects that are named
            "gt_word_count": sum(map(len, there)),
            "hallucinated_sentence_num": sum(bad),
            "mention_num": sum(map(len, objects)),
            "hallucinated_mention_num": sum(wrong),
        },
        ratios=ratios,
        variant=_variant(captions, synonyms, mode),
    )


class Word(NamedTuple):
    """A word, or two that are one, and the place of the first."""

    text: str
    place: int
    pair: bool


def paired(words: Sequence[str], synonyms: Synonyms) -> list[Word]:
    """The words, listed pairs as one.

    >>> paired(["a", "hot", "dog"], Synonyms("", {"hot dog": "hot dog"}))
    [Word(text='a', place=0, pair=False), Word(text='hot dog', place=1, pair=True)]
    """
    found: list[Word] = []
    while (place := found[-1].place + 1 + found[-1].pair if found else 0) < len(words):
        joined = (
            synonyms.phrases.get(" ".join(words[place : place + 2]))
            if place + 1 < len(words)
            else None
        )
        found.append(Word(joined or words[place], place, joined is not None))
    return found


def known(words: Collection[str], synonyms: Synonyms) -> list[str]:
    """The words that the list has; where a toilet is there, a seat is no chair."""
    seat = "seat" if "toilet" in words else None
    return [word for word in words if word in synonyms.mended and word != seat]


def singular(word: str, synonyms: Synonyms, mode: Mode) -> str:
    """The singular of a lower-case word, where that can matter; as spaCy makes "scissor" of
    "scissors".

    >>> listed = Synonyms("", {"man": "person", "vase": "vase", "bus": "bus", "scissors": "scissors"})
    >>> [singular(word, listed, "official") for word in ("men", "vases", "buses", "bus", "scissors", "lamps")]
    ['man', 'vase', 'bus', 'bus', 'scissor', 'lamps']
    """
    if word == "scissors" and mode == "official":
        return "scissor"
    endings = [ending.split(">") for ending in _ENDINGS]
    forms = [word[: -len(old)] + new for old, new in endings if word.endswith(old)]
    return next((form for form in (_IRREGULAR.get(word), *forms) if form in synonyms.parts), word)


def _variant(captions: Iterable[Caption], synonyms: Synonyms, mode: Mode) -> dict[str, str]:
    extracted = any(caption.extracted is not None for caption in captions)
    return {
        "benchmark": "objhal",
        "mode": mode,
        "objects": "extracted by a language model" if extracted else "words of the caption",
        "synonyms": synonyms.name,
        "tokenizer": tokens.describe(),
    }


def _pooled(columns: Ratio) -> float:
    above, below = (int(column.sum()) for column in columns)
    return above / below if below else 0.0


def _plain(text: str, synonyms: Synonyms, mode: Mode) -> list[str]:
    """A caption's lemmas, listed pairs as one; in strict mode without what is negated."""
    lower = tokens.words(text.lower())
    if mode == "official":
        return [
            word.text
            for word in paired([wordnet.load("n").lemma(word) for word in lower], synonyms)
        ]
    gone = negated(lower)
    singulars = [singular(word, synonyms, mode) for word in lower]
    return [word.text for word in paired(singulars, synonyms) if not gone[word.place]]


def _of_phrase(phrase: str, synonyms: Synonyms, mode: Mode) -> list[str]:
    """The listed pairs in an extracted phrase, or else its runs of nouns."""
    split = tokens.words(phrase)
    lower = [singular(word.lower(), synonyms, mode) for word in split]
    if pairs := [word.text for word in paired(lower, synonyms) if word.pair]:
        return pairs
    runs: list[list[str]] = [[]]
    for word, noun in zip(lower, _nouns(split, lower, synonyms), strict=True):
        if noun:
            runs[-1].append(word)
        else:
            runs.append([])
    named = [" ".join(run) for run in runs if run]
    return (
        named
        if mode == "official"
        else [name if name in synonyms.mended else name.split()[-1] for name in named]
    )


def _nouns(split: Sequence[str], lower: Sequence[str], synonyms: Synonyms) -> list[bool]:
    """Which words of a phrase are nouns, by their tags; but one used as adjective is not, and a
    listed last word is.
    """
    tags = tagger.load().tag(["There", "is", "a", *split, "."])[3:-1]
    tagged = [tag[:2] == "NN" for tag in tags]
    modifiers = [
        noun and not _adjective(word) for word, noun in zip(lower[:-1], tagged, strict=False)
    ]
    return [
        *modifiers,
        *(
            noun or word in synonyms.mended
            for word, noun in zip(lower[-1:], tagged[-1:], strict=True)
        ),
    ]


def _adjective(word: str) -> bool:
    noun, adjective = _uses()
    return 2 * adjective.get(word, 0) > noun.get(word, 0)


def _uses() -> tuple[Mapping[str, int], Mapping[str, int]]:
    """How often WordNet's tagged texts use a word as a noun, and as an adjective; of words that
    they use at all.
    """
    import nltk

    return _read_uses(tuple(nltk.data.path))


@lru_cache(maxsize=1)
def _read_uses(path: tuple[str, ...]) -> tuple[Mapping[str, int], Mapping[str, int]]:
    from nltk.data import find

    uses = {
        "1": Counter[str](),
        "3": Counter[str](),
        "5": Counter[str](),
    }  # noun, adjective, adjective satellite
    try:
        with find("corpora/wordnet/index.sense").open() as file:
            text = file.read().decode("utf-8")
    except LookupError:
        raise InputError(
            "NLTK_DATA: WordNet is missing; run `python -m nltk.downloader wordnet`"
        ) from None
    for line in text.splitlines():
        if not line.endswith(" 0"):
            word, sense = line.split("%", 1)
            if sense[0] in uses:
                uses[sense[0]][word] += int(line.rsplit(" ", 1)[1])
    return uses["1"], uses["3"] + uses["5"]
