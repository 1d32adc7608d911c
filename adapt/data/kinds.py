"""Which kind of question a foreign row asks, guessed from its words.

Only what is asked for a description is read for objects, and only a yes/no question has an answer
that can be counted; every other question stays "other".
"""

import re

_YES_OR_NO = re.compile(r"\W*(yes\b|no(?=\W*$|\s*[,.;:!\n]|\s+(there|it|the|this|that)\b))", re.I)
_DESCRIBE = re.compile(
    r"\bdescri(be|bing|ption)\b|\bcaption\b|\bdepict(s|ed)?\b"
    r"|\bwhat (can|do) you (see|notice|observe)\b"
    r"|\bwhat(['\u2019]s| is| does| are) .{0,40}\b(in|show(n|s)?( in)?|happening in) (the|this) "
    r"(image|picture|photo(graph)?)\b\s*\??$"
    r"|\b(tell me|explain|write|elaborate|narrate|summari[sz]e)\b.{0,60}\b(image|picture|photo)",
    re.I,
)


def kind_of(question: str, answer: str) -> str:
    """exists, describe or other; "colour" is not guessed, because it is judged against truth.

    >>> kind_of("Is there a dog?", "Yes, there is."), kind_of("Describe the image.", "A dog.")
    ('exists', 'describe')
    >>> kind_of("How many are there?", "No fewer than five.")
    'other'
    """
    if _YES_OR_NO.match(answer):
        return "exists"
    return "describe" if _DESCRIBE.search(question) else "other"
