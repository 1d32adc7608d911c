"""Addresses with passwords in them: what may be shown of one, and which machine it points at.

An address is taken apart as a URL is, so that a password may hold any character. Where that leaves
two readings, as in `http://me:1/2@host`, whose `1` could be a port, the one that shows less is
taken. A library that gets such an address would show half of a password itself, so `given` refuses
it.
"""

import os
import re
from urllib.parse import urlsplit

from adapt.params import InputError

VARIABLES = (
    *("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL"),
    *("PREFECT_API_URL", "PREFECT_API_DATABASE_CONNECTION_URL", "ADAPT_ALERT_URL"),
    "PREFECT_SERVER_DATABASE_CONNECTION_URL",
    *("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS", "ADAPT_RAY_STORAGE"),
)

# A scheme and what follows it, to the end of the word or of the quotation.
_START = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,40}://")  # bounded, or a long word takes minutes
_NEXT = re.compile(rf"(?<![^\s'\"`<>,;()\[\]{{}}=]){_START.pattern}")
_END = re.compile(r"[\s'\"`<>]")
_PAIR = re.compile(r"(?<=[?&;#])([^=&;#?\s'\"]+)=([^&;#\s'\"]*)")
_SECRETS = re.compile("key|token|secret|passw|pwd|signature|credential|sig|auth", re.IGNORECASE)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]*\]?|[^:\[\]]*)(:\d{0,5})?")
_USER = re.compile(
    r"([\w.~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*(:([\w.~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)?"
)
_ADVICE = "write / as %2F, @ as %40, : as %3A, # as %23, ? as %3F and % as %25"


def shown(text: str) -> str:
    """`text` without users and passwords of its addresses, nor values of secret query arguments.

    >>> shown("from s3://me:pw@host/data?X-Amz-Signature=ab&part=1")
    'from s3://host/data?X-Amz-Signature=***&part=1'
    >>> shown("http://me:p/w@#?@host:80/x is away, hf://datasets/name@4f is not")
    'http://host:80/x is away, hf://datasets/name@4f is not'
    """
    parts, position = [], 0
    while match := _START.search(text, position):
        parts.append(text[position : match.end()])
        line = text[match.end() :].partition("\n")[0]
        following = _NEXT.search(line, 1)
        line = line[: following.start()] if following else line
        hidden, is_cut = _user(line)
        parts += ["***"] if is_cut else []
        position = match.end() + hidden
    return _without_values("".join(parts) + text[position:])


def _user(line: str) -> tuple[int, bool]:
    """How much of an address is its user, from behind the scheme; whether no host follows it."""
    # 1. The word, and its authority: what lies before the first of / ? # is user and host.
    word = _word(line)
    authority = re.split(r"[/?#]", word, maxsplit=1)[0]
    host = authority.rpartition("@")[2]
    is_host = _HOST.fullmatch(host) is not None
    # 2. A colon that no port follows, or an @ behind one, is within a password.
    if ":" not in authority or (is_host and "@" not in word):
        return len(authority) - len(host), False
    # 3. A password that holds a space or a quotation mark goes on beyond the word.
    if "@" not in word[len(authority) - len(host) :] and not is_host:
        word = line if "@" in line else word
    if "@" not in word:
        return len(word), True
    # 4. What follows the last @ is shown only where it can be a host.
    user = word.rindex("@") + 1
    rest = _word(word[user:])
    is_host = _HOST.fullmatch(re.split(r"[/?#]", rest, maxsplit=1)[0]) is not None
    return (user, False) if is_host else (user + len(rest), True)


def _word(line: str) -> str:
    """An address to its end, without the punctuation of a sentence."""
    return _END.split(line, maxsplit=1)[0].rstrip(".,:;!)]}")


def _without_values(text: str) -> str:
    """`text` with *** for what follows `...token=` and its like in a query or a fragment."""

    def masked(pair: re.Match[str]) -> str:
        return f"{pair[1]}=***" if _SECRETS.search(pair[1]) and pair[2] else pair[0]

    return _PAIR.sub(masked, text)


def given(variable: str) -> str:
    """The address in an environment variable, without spaces around it; "" where there is none.

    `InputError`, which does not repeat it, where it cannot be taken apart in one way only.
    """
    text = os.environ.get(variable, "").strip()
    _, scheme, rest = text.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, _, host = authority.rpartition("@")
    problem = ""
    if not text.isprintable():
        problem = "holds a character that does not print"
    elif scheme and not (_USER.fullmatch(user) and _HOST.fullmatch(host)):
        problem = f"has a user or password with a character that an address cannot hold; {_ADVICE}"
    elif ":" in authority and "@" in rest[len(authority) :]:
        problem = f"has an @ behind its first /; if that is in a password, {_ADVICE}"
    if problem:
        raise InputError(f"{variable}: {problem}")
    return text


def host(url: str) -> str:
    """Host and port of `url`, without user and password; nothing where it has none."""
    try:
        return urlsplit(shown(url)).netloc.rpartition("@")[2]
    except ValueError:  # a bracket that does not close
        return ""


def is_loopback(url: str) -> bool:
    """Whether `url` points at this machine's own loopback interface."""
    try:
        name = urlsplit(url).hostname or ""
    except ValueError:
        return False
    # A whole address of four numbers: 127.0.0.1.example is anybody's name.
    is_address = re.fullmatch(r"127(\.\d{1,3}){3}", name) is not None
    return name in ("localhost", "::1") or is_address
