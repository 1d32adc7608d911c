"""What a served model is asked, and what it answers.

Shapes: M cells of a grid over a picture.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from numpy.typing import NDArray
from PIL import Image

from adapt.data.schema import Turn

Policy = Literal["flag", "steer", "retry", "stop"]
"""What is done about risk.

flag    nothing: it is told
steer   the model is steered, from a token whose risk reaches the threshold until one's does not
retry   an answer whose risk reaches it is made again, steered; the less risky one is kept
stop    the answer ends before a word whose risk reaches it
"""
POLICIES: tuple[Policy, ...] = get_args(Policy)
Finish = Literal["stop", "length", "risk"]
"""How an answer ended: by itself, where it was cut, or before a risky word (policy `stop`)."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One question about pictures.

    id              of the answer, too
    seed            names what it samples at a `temperature` above 0; None: its id does
    images          in the order in which they are spoken of; where they stand a question may say
    history         the turns before the question
    max_new_tokens  None: as many as the model was judged with, which is the most in any case
    maps            whether it is told where each token looked
    """

    id: str
    images: Sequence[Image.Image]
    question: str
    history: Sequence[Turn] = ()
    policy: Policy = "flag"
    threshold: float = 0.5
    max_new_tokens: int | None = None
    temperature: float = 0.0
    seed: int | None = None
    maps: bool = False


class Token(NamedTuple):
    """One token of an answer.

    text     what it adds to the answer; "" of the first bytes of a letter
    end      where it ends in the answer, in characters
    logprob  how probable the model held it (nats, before temperature)
    steered  share of the layers that were steered when it was made
    risk     that it makes something up, if it begins the name of a thing; None without a detector

    The others are the signals of docs/method.md, section 1.
    """

    id: int
    text: str
    end: int
    logprob: float
    mass: float
    focus: float
    amc: float
    responsiveness: float
    drift: float
    steered: float
    risk: float | None


@dataclass(frozen=True, kw_only=True)
class Named:
    """A thing that an answer names, the characters [start, end) that do, and the risk there."""

    name: str
    start: int
    end: int
    risk: float | None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer and what is known of it.

    risk           the highest of the things it names, 0 where it names none; None without detector
    steered, mass  share of steered layers and tokens, and mean attention on the pictures
    passes         how often the model has answered for it
    detector       version of the one that warns, where it was fitted again; "" is the model's own
    maps           of each token, for each picture: [M]; None unless they were asked for
    grids          (rows, columns) of the maps, for each picture
    """

    id: str
    text: str
    tokens: tuple[Token, ...]
    named: tuple[Named, ...]
    risk: float | None
    finish: Finish
    policy: Policy
    steered: float
    mass: float
    prompt_tokens: int
    passes: int
    detector: str
    maps: list[list[NDArray[Any]]] | None
    grids: list[tuple[int, int]]


Hear = Callable[[int, Sequence[Token]], bool]
"""Called with the number of a question and new tokens of its answer; False: nobody listens."""
