"""Object HalBench: COCO objects in descriptions, as RLHF-V scores them (arXiv 2312.00849).

Its code is eval_gpt_obj_halbench.py in https://github.com/RLHF-V/RLHF-V. An object counts when it
is one of COCO's 80, by a list of synonyms; where it comes from is the caller's:

    extracted   a language model has listed the objects of each caption. Of a phrase, a listed pair
                of words counts ("motor bike"), and else each run of nouns, so that "wooden table"
                is a table and "soccer ball" nothing; what is listed twice counts once, but "woman"
                and "man" are two persons
    plain       the caption's own words, repeats included; lemmatised by WordNet, which leaves "men"
                as it is

The published Response rate is `CHAIRs_refine`: captions with a hallucinated object / captions with
any object (not all captions). The published Mention rate is `CHAIRi`. An empty caption has a length
of one word.

The official code tags and lemmatises phrases with spaCy; here NLTK's tagger does, within "There is
a ... .", and a word that WordNet's texts use as an adjective at least half as often as as a noun is
no noun before another word. `strict` counts an object once, takes the last word of an unknown
compound, finds "men" and "scissors", and drops what is negated.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter

from adapt.score.chair import Synonyms, Truth, join
from adapt.score.content import shown
from adapt.score.scored import Mode, Scored, pooled, ratio
from adapt.score.text import english
from adapt.score.text.negation import negated
from adapt.score.text.pool import read_each

_ENDINGS = "s> ses>s ves>f xes>x zes>z ches>ch shes>sh men>man ies>y"  # old>new
_PAIRS = [tuple(ending.split(">")) for ending in _ENDINGS.split()]
_IRREGULAR = {
    "children": "child",
    "mice": "mouse",
    "oxen": "ox",
    "knives": "knife",
    "calves": "calf",
}


@dataclass(frozen=True)
class Caption:
    """What was said about an image; objects that a language model listed (None: read the text)."""

    image: str
    text: str
    extracted: tuple[str, ...] | None


def mentioned(caption: Caption, synonyms: Synonyms, mode: Mode) -> list[str]:
    """The objects of a caption, in order, one for each mention that counts.

    "A wooden table, men and a bow tie", extracted as such, gives dining table, person and tie.
    """
    if caption.extracted is None:
        return of_text(caption.text, synonyms, mode)
    # 1. Each phrase gives its listed pairs, or its runs of nouns, which need not be listed.
    names = [name for phrase in caption.extracted for name in _of_phrase(phrase, synonyms, mode)]
    # 2. A word that is listed twice counts once; two words of one object count twice.
    objects = [synonyms.mended[word] for word in known(list(dict.fromkeys(names)), synonyms)]
    # 3. Strict: an object counts once.
    return objects if mode == "official" else list(dict.fromkeys(objects))


def of_text(text: str, synonyms: Synonyms, mode: Mode) -> list[str]:
    """The objects that a caption's own words name, repeats included."""
    return [synonyms.mended[word] for word in known(_plain(text, synonyms, mode), synonyms)]


def score(captions: Sequence[Caption], truth: Truth, synonyms: Synonyms, mode: Mode) -> Scored:
    """The official metrics, as fractions, from captions and the objects that are in each image.

    Three captions, of which one names no object. "A dog with a cat" hallucinates the cat; "dogs"
    are there. So 1 of 3 captions, 1 of 2 captions with an object and 1 of 3 mentions are wrong, and
    2 of 4 true objects are named.
    """
    objects = _mentioned(captions, synonyms, mode)
    true = [synonyms.true(truth[caption.image]) for caption in captions]
    rows = list(zip(objects, true, strict=True))
    wrong = [sum(name not in own for name in names) for names, own in rows]
    covered = [len(own.intersection(names)) for names, own in rows]
    bad, some = [int(count > 0) for count in wrong], [int(bool(names)) for names in objects]
    lengths = [len(caption.text.strip().split(" ")) for caption in captions]
    ones = [1] * len(captions)
    ratios = {
        "CHAIRs": ratio(bad, ones),
        "CHAIRs_refine": ratio(bad, some),
        "CHAIRi": ratio(wrong, [len(names) for names in objects]),
        "obj_rec": ratio(covered, [len(own) for own in true]),
        "avg_word_len": ratio(lengths, ones),
    }
    metrics = pooled(ratios)
    metrics["correct_rate"] = 1 - metrics["CHAIRs_refine"]
    metrics["object_correct_rate"] = 1 - metrics["CHAIRi"]
    counts = {
        "sentence_num": len(captions),
        "coco_sentence_num": sum(some),
        "coco_word_count": sum(covered),  # the official name for true objects that are named
        "gt_word_count": sum(map(len, true)),
        "hallucinated_sentence_num": sum(bad),
        "mention_num": sum(map(len, objects)),
        "hallucinated_mention_num": sum(wrong),
    }
    return Scored(metrics, counts, ratios, _variant(captions, synonyms, mode))


def _mentioned(captions: Sequence[Caption], synonyms: Synonyms, mode: Mode) -> list[list[str]]:
    """`mentioned` of each caption; whole captions are read by several processes, phrases here."""
    if any(caption.extracted is not None for caption in captions):
        return [mentioned(caption, synonyms, mode) for caption in captions]
    named = [(f"image_id {shown(caption.image)}", caption.text) for caption in captions]
    return read_each(partial(of_text, synonyms=synonyms, mode=mode), named)


def known(words: Collection[str], synonyms: Synonyms) -> list[str]:
    """The words that the list has; where a toilet is there, a seat is no chair."""
    seat = "seat" if "toilet" in words else None
    return [word for word in words if word in synonyms.mended and word != seat]


def singular(word: str, synonyms: Synonyms, mode: Mode) -> str:
    """The singular of a lower-case word, where it can matter; "scissor", as spaCy has it.

    >>> listed = Synonyms("", {name: name for name in ("man", "vase", "bus", "scissors")})
    >>> words = ("men", "vases", "buses", "bus", "scissors", "lamps")
    >>> [singular(word, listed, "official") for word in words]
    ['man', 'vase', 'bus', 'bus', 'scissor', 'lamps']
    """
    if word == "scissors" and mode == "official":
        return "scissor"
    forms = [word[: -len(old)] + new for old, new in _PAIRS if word.endswith(old)]
    return next((form for form in (_IRREGULAR.get(word), *forms) if form in synonyms.parts), word)


def _variant(captions: Iterable[Caption], synonyms: Synonyms, mode: Mode) -> dict[str, str]:
    extracted = any(caption.extracted is not None for caption in captions)
    source = "extracted by a language model" if extracted else "words of the caption"
    variant = {"benchmark": "objhal", "mode": mode, "objects": source}
    variant |= {"synonyms": synonyms.name, "tokenizer": english.TOKENIZER}
    if extracted:
        return variant | {"tagger": english.TAGGER}
    return variant | ({"lemmas": english.LEMMATIZER} if mode == "official" else {})


def _plain(text: str, synonyms: Synonyms, mode: Mode) -> list[str]:
    """A caption's lemmas, listed pairs as one; in strict mode without what is negated."""
    words = english.words(text.lower())
    if mode == "official":
        bases = [english.lemma(word, "n") for word in words]
    else:
        reached = zip(words, negated(words), strict=True)
        bases = ["" if no else singular(word, synonyms, mode) for word, no in reached]
    return [word for word, _ in join(bases, synonyms.phrases, longest=2)]


def _of_phrase(phrase: str, synonyms: Synonyms, mode: Mode) -> list[str]:
    """The listed pairs in an extracted phrase, or else its runs of nouns."""
    words = english.words(phrase)
    lower = [singular(word.lower(), synonyms, mode) for word in words]
    if pairs := [word for word, size in join(lower, synonyms.phrases, longest=2) if size == 2]:
        return pairs
    # A word that is no noun ends a run; neighbouring nouns are one name.
    tagged = zip(_nouns(words, lower, synonyms), lower, strict=True)
    runs = groupby(tagged, key=itemgetter(0))
    names = [" ".join(word for _, word in run) for noun, run in runs if noun]
    if mode == "official":
        return names
    return [name if name in synonyms.mended else name.split()[-1] for name in names]


def _nouns(words: Sequence[str], lower: Sequence[str], synonyms: Synonyms) -> list[bool]:
    """Which words are nouns by their tags; but no adjective is, and a listed last word is."""
    tags = english.tags(["There", "is", "a", *words, "."])[3:-1]
    nouns = [tag[:2] == "NN" for tag in tags]
    last = len(nouns) - 1
    return [
        noun and not _adjective(word) if place < last else noun or word in synonyms.mended
        for place, (word, noun) in enumerate(zip(lower, nouns, strict=True))
    ]


def _adjective(word: str) -> bool:
    noun, adjective = english.uses(word)
    return 2 * adjective > noun
