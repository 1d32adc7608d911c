"""Which vocabulary objects an answer mentions, and where.

Plain words against a closed vocabulary: lower-cased, whole words only, longer forms first ("traffic
light" before "light"). There is no tagging and no negation: "there is no tree" mentions a tree, so
count object mentions in descriptions and read yes/no answers with `pope`.
"""

import bisect
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Mention:
    """An object's canonical name, and the characters [start, end) of the answer that mean it."""

    name: str
    start: int
    end: int

    @property
    def span(self) -> tuple[int, int]:
        return self.start, self.end


def find(text: str, words: Mapping[str, Sequence[str]]) -> tuple[Mention, ...]:
    """All mentions in order, with repeats; `words` maps a canonical name to its lower-case words.

    >>> words = {"bicycle": ["bicycle", "bike"], "house": ["house", "houses"]}
    >>> find("A bike, two Houses, a bikeshed.", words)
    (Mention(name='bicycle', start=2, end=6), Mention(name='house', start=12, end=18))
    """
    pattern, owner = _compiled(tuple((name, tuple(forms)) for name, forms in words.items()))
    # Lower-casing must not move the spans: the few letters that grow stay as they are.
    lower = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    return tuple(Mention(owner[match[0]], *match.span()) for match in pattern.finditer(lower))


def first_token(ends: Sequence[int], mention: Mention) -> int:
    """The token that a mention begins with; `ends`: where each ends in the text, in characters.

    The first one that reaches past the word's first letter, to which its space belongs; the number
    of tokens where none does.

    >>> first_token([1, 5, 7, 11], Mention("bus", 8, 11))
    3
    """
    return bisect.bisect_right(ends, mention.start)


def word_before(text: str, mention: Mention) -> str:
    """The word right before a mention, lower-case, as a colour stands; "" where there is none.

    >>> text, words = "A Red house and", {"house": ("house",)}
    >>> [word_before(text, mention) for mention in find(text, words)]
    ['red']
    """
    return (text[: mention.start].lower().split() or [""])[-1]


def named(text: str, words: Iterable[str]) -> set[str]:
    """Which of `words` (colours, say) the text contains.

    >>> named("The house is red.", ["red", "blue"])
    {'red'}
    """
    return {mention.name for mention in find(text, {word: (word,) for word in words})}


@lru_cache(maxsize=16)
def _compiled(words: tuple[tuple[str, tuple[str, ...]], ...]) -> tuple[re.Pattern, dict[str, str]]:
    owner = {form: name for name, forms in words for form in forms}
    longest_first = sorted(owner, key=lambda form: (-len(form), form))
    choices = "|".join(map(re.escape, longest_first)) or r"(?!)"
    return re.compile(rf"(?<!\w)(?:{choices})(?!\w)"), owner


def marked(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """The text with every span as `**word**`.

    >>> marked("a red car and a blue bus.", [(21, 24)])
    'a red car and a blue **bus**.'
    """
    for start, end in sorted(spans, reverse=True):
        text = f"{text[:start]}**{text[start:end]}**{text[end:]}"
    return text
