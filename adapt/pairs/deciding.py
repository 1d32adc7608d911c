"""Which characters of two answers decide which one is better. docs/method.md, section 4.

Where ground truth ranked the answers it also says why: what the worse one makes up, and what the
better one has to say besides. Of answers that were given, the words decide in which they differ.
Training may give the tokens of these characters more weight (`train.span_weight`).
"""

import difflib
import functools
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence

from adapt.data.schema import Example, Vocabulary
from adapt.metrics.chair import count
from adapt.metrics.mentions import Mention, find
from adapt.models.prompts import Range
from adapt.pairs.rank import wrongly_coloured
from adapt.pairs.record import Span

Spans = tuple[Span, ...]
Both = tuple[Spans, Spans]  # of the chosen and of the rejected answer

YES_NO = {"yes": ("yes",), "no": ("no", "not")}


# ---- answers that ground truth has ranked --------------------------------------------------------


def by_truth(chosen: str, rejected: str, example: Example, vocabulary: Vocabulary | None) -> Both:
    """Of two answers to a question that can be ranked (`adapt/pairs/rank.py`).

    Yes/no and colour questions: the deciding words that the other answer does not have.
    Descriptions: what the rejected answer makes up, or says in a wrong colour, and what the chosen
    answer says of the picture that the rejected one lacks, or has in a wrong colour; each with the
    colour word before it. Where none of this is found, the words in which the answers differ.
    """
    if example.kind == "exists":
        found = _words_apart(chosen, rejected, YES_NO)
    elif example.kind == "colour":
        assert vocabulary is not None, "a colour question is ranked by its words for colours"
        found = _words_apart(chosen, rejected, {word: (word,) for word in vocabulary.colours})
    else:
        assert vocabulary is not None, "a description is ranked by its words for objects"
        found = _mentions_apart(chosen, rejected, example, vocabulary)
    return found if any(found) else by_words(chosen, rejected)


def _words_apart(chosen: str, rejected: str, words: Mapping[str, Sequence[str]]) -> Both:
    """What either answer says of `words` and the other does not."""
    good, bad = find(chosen, words), find(rejected, words)
    return _lacking(good, bad), _lacking(bad, good)


def _lacking(own: Sequence[Mention], other: Sequence[Mention]) -> Spans:
    names = {mention.name for mention in other}
    return tuple(mention.span for mention in own if mention.name not in names)


def _mentions_apart(chosen: str, rejected: str, example: Example, vocabulary: Vocabulary) -> Both:
    good, bad = (count(text, example, vocabulary) for text in (chosen, rejected))
    off_good = wrongly_coloured(chosen, example, good.mentions)
    off_bad = wrongly_coloured(rejected, example, bad.mentions)
    # 1. The rejected answer is worse by what is not there and by colours that are wrong. A colour
    #    that is missing is no word that could become less likely.
    made_up = [phrase(rejected, m, vocabulary) for m in bad.mentions if m.name not in bad.truth]
    phrases = [(m.span, phrase(rejected, m, vocabulary)) for m in off_bad]
    made_up += [phrase for span, phrase in phrases if phrase != span]
    # 2. The chosen answer is better by what is there and the other one does not say, or does not
    #    say in its colour. Its own wrong colours are no part of that.
    rightly = {mention.name for mention in bad.mentions if mention not in off_bad}
    new = [m for m in good.mentions if m.name in good.truth and m.name not in bad.mentioned]
    gained = [m.span if m in off_good else phrase(chosen, m, vocabulary) for m in new]
    mended = [m for m in good.mentions if m.name in bad.mentioned and m.name not in rightly]
    gained += [phrase(chosen, m, vocabulary) for m in mended if m not in off_good]
    return _merged(gained), _merged(made_up)


def phrase(text: str, mention: Mention, vocabulary: Vocabulary) -> Span:
    """A mention with the colour word right before it, if there is one."""
    colours = find(text[: mention.start], {word: (word,) for word in vocabulary.colours})
    is_before = bool(colours) and not text[colours[-1].end : mention.start].strip()
    return (colours[-1].start if is_before else mention.start), mention.end


def _merged(spans: Iterable[Span]) -> Spans:
    """In order and apart: those that overlap become one.

    >>> _merged([(9, 12), (3, 6), (4, 8), (8, 9)])
    ((3, 8), (8, 9), (9, 12))
    """
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            start, end = merged[-1][0], max(end, merged.pop()[1])
        merged.append((start, end))
    return tuple(merged)


# ---- answers that were given ---------------------------------------------------------------------


def by_words(chosen: str, rejected: str) -> Both:
    """The words in which two answers differ, as a diff of their words finds them.

    Capitals, white space and punctuation make no difference, and a span neither begins nor ends
    with punctuation. None of two answers that say the same; all of two that share nothing.

    >>> good, bad = "A red car, and a tree.", "a red bus and, a tree!"
    >>> spans = by_words(good, bad)
    >>> [good[start:end] for start, end in spans[0]], [bad[start:end] for start, end in spans[1]]
    (['car'], ['bus'])
    """
    own, other = (
        [span for span in words(text) if not _is_punctuation(text[slice(*span)])]
        for text in (chosen, rejected)
    )
    first = [_folded(chosen[start:end]) for start, end in own]
    second = [_folded(rejected[start:end]) for start, end in other]
    blocks = difflib.SequenceMatcher(None, first, second, autojunk=False).get_opcodes()
    apart = [block[1:] for block in blocks if block[0] != "equal"]
    good = tuple((own[i][0], own[j - 1][1]) for i, j, _, _ in apart if i < j)
    bad = tuple((other[i][0], other[j - 1][1]) for _, _, i, j in apart if i < j)
    return good, bad


def _folded(word: str) -> str:
    """A word without its capitals, whatever form its signs are written in."""
    return unicodedata.normalize("NFKC", word).casefold()


def _is_punctuation(word: str) -> bool:
    return all(unicodedata.category(sign).startswith("P") for sign in word)


def words(text: str) -> Iterator[Span]:
    """Where the words of a text are: runs of letters and digits, and all other signs one by one.

    What modifies the sign before it (accents, variants, joined emoji) belongs to it. A sign of a
    script without blanks between words is a word of its own.

    >>> [text[start:end] for text in ("a T-shirt, 3 cafés", "猫と犬") for start, end in words(text)]
    ['a', 'T', '-', 'shirt', ',', '3', 'cafés', '猫', 'と', '犬']
    """
    start, kind = 0, ""  # of the word that is open: "word", "sign", or "" where there is none
    joined = False
    for at, sign in enumerate(text):
        found = _kind(sign)
        goes_on = bool(kind) and (found == "mark" or joined or found == kind == "word")
        if not goes_on:
            if kind:
                yield start, at
            start, kind = at, "sign" if found == "mark" else found
        joined = sign == _JOINER
    if kind:
        yield start, len(text)


_JOINER = "\N{ZERO WIDTH JOINER}"
_ALONE = ("CJK ", "HIRAGANA ", "KATAKANA ", "THAI ", "LAO ", "KHMER ", "MYANMAR ")


@functools.lru_cache(maxsize=1 << 14)
def _kind(sign: str) -> str:
    """Of a character: "word", "sign", "mark" (of the one before it), or "" for white space."""
    category = unicodedata.category(sign)
    if sign.isspace():
        return ""
    if category[0] == "M" or category == "Cf" or "EMOJI MODIFIER" in unicodedata.name(sign, ""):
        return "mark"
    is_letter = category[0] in "LN" or category == "Pc"
    return "word" if is_letter and not unicodedata.name(sign, "").startswith(_ALONE) else "sign"


def inside(ranges: Sequence[Range], spans: Sequence[Span]) -> list[bool]:
    """Which tokens, of these characters, stand for a character of a span.

    >>> inside([(0, 1), (1, 5), (5, 9), (9, 9)], [(2, 5), (8, 9)])
    [False, True, True, False]
    """
    return [any(low < end and start < high for start, end in spans) for low, high in ranges]
