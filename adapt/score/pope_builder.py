"""POPE's questions from what is in the images (arXiv 2305.10355, section 3.1).

    python -m adapt.score pope-questions --truth objects.json --strategy adversarial

For each image, its first objects are asked for, each followed by an object that is not there, never
twice in an image:

    random        any object of the data set
    popular       the most frequent one over all images
    adversarial   the one that most often is in an image together with the object just asked for

`official` does what https://github.com/RUCAIBox/POPE, utils.py, does; `strict` mends the first two
of its quirks:

* Before a vowel *every* letter a of the template becomes "an": "Is there an apple in the imange?".
  The published COCO files were corrected by hand, copies of them were not.
* Of equally frequent objects, the one that the data names first comes first; in strict mode the
  alphabet decides, so that the order of the images changes nothing but what is drawn.
* Where no candidate is left, any other object is drawn, by Python's generator, seeded with `seed`
  for each file. The published random files were made without a recorded seed.
* An image with fewer objects than are asked for is an IndexError there, and one that holds every
  object of the data set an endless loop; both are an `InputError` that names the image here.
"""

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from adapt import command
from adapt.names import one_line
from adapt.params import InputError
from adapt.score import coco
from adapt.score.scored import Mode

Strategy = Literal["random", "popular", "adversarial"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
ASKED = "Is there a {} in the image?"


@dataclass(frozen=True)
class Segmented:
    """An image's name and its objects, in the order in which they are asked for."""

    image: str
    objects: tuple[str, ...]


Images = Sequence[Segmented]


def write(options: argparse.Namespace) -> None:
    """The command: a line for each question, to `options.out` or to standard output.

    Images with fewer objects than are asked for are left out before anything is counted, as the
    official program does.
    """
    # POPE asks for what is segmented, not for what the reference captions mention.
    truth = coco.read(options.truth, coco.Reading(None, str, mentioned=lambda caption: ()))
    images = [Segmented(image, tuple(objects)) for image, objects in truth.objects.items()]
    rich = [image for image in images if len(image.objects) >= options.per_image]
    if not rich:
        raise InputError(f"{options.truth}: no image has {options.per_image} objects")
    if len(rich) < len(images):
        few = f"{len(images) - len(rich)} of {len(images)} images"
        print(
            one_line(f"{few} have fewer than {options.per_image} objects; left out"),
            file=sys.stderr,
        )
    lines = build(rich, options.strategy, options.per_image, options.seed, options.mode)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    if options.out is None:
        sys.stdout.write(text)
        return
    try:
        options.out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{options.out}: {command.advice(error)}") from None


def build(
    images: Images, strategy: Strategy, per_image: int, seed: int, mode: Mode, template: str = ASKED
) -> list[dict[str, int | str]]:
    """The lines of a POPE file, in order: question_id, image, text, label.

    >>> images = [Segmented("a.jpg", ("cup", "apple")), Segmented("b.jpg", ("dog", "cup"))]
    >>> for line in build(images, "popular", per_image=1, seed=0, mode="official"):
    ...     print(*line.values())
    1 a.jpg Is there a cup in the image? yes
    2 a.jpg Is there a dog in the image? no
    3 b.jpg Is there a dog in the image? yes
    4 b.jpg Is there an apple in the imange? no
    """
    rng, counts = random.Random(seed), frequencies(images)
    names = list(counts) if mode == "official" else sorted(counts)
    popular, together = most_common(counts, mode), co_occurring(images, mode)
    asked: list[tuple[str, str, str]] = []
    for image in images:
        taken = set(image.objects)
        if len(image.objects) < per_image:
            few = f"has {len(image.objects)} objects, and {per_image} are to be asked for"
            raise InputError(f"{image.image}: {few}")
        for name in image.objects[:per_image]:
            # The first candidate that is neither there nor asked for already; none for "random".
            candidates = {"random": [], "popular": popular, "adversarial": together[name]}[strategy]
            absent = _absent(image.image, candidates, names, taken, rng)
            taken.add(absent)
            asked += [(image.image, name, "yes"), (image.image, absent, "no")]
    keys = ("question_id", "image", "text", "label")
    texts = [(image, question(name, mode, template), label) for image, name, label in asked]
    return [dict(zip(keys, (n, *line), strict=True)) for n, line in enumerate(texts, 1)]


def frequencies(images: Images) -> Counter[str]:
    """In how many images each object is, in the order in which the data names them."""
    return Counter(name for image in images for name in image.objects)


def co_occurring(images: Images, mode: Mode) -> dict[str, list[str]]:
    """For each object the others that share an image with it, the most frequent first.

    >>> images = [Segmented("a", ("cup", "dog")), Segmented("b", ("dog", "bus"))]
    >>> co_occurring([*images, Segmented("c", ("bus", "dog"))], "official")
    {'cup': ['dog'], 'dog': ['bus', 'cup'], 'bus': ['dog']}
    """
    together: dict[str, Counter[str]] = {}
    for image in images:
        for name in image.objects:
            others = (other for other in image.objects if other != name)
            together.setdefault(name, Counter()).update(others)
    return {name: most_common(others, mode) for name, others in together.items()}


def most_common(counts: Mapping[str, int], mode: Mode) -> list[str]:
    """Names by falling count; ties as they come, or by name in strict mode."""
    names = list(counts) if mode == "official" else sorted(counts)
    return sorted(names, key=lambda name: -counts[name])


def question(name: str, mode: Mode, template: str = ASKED) -> str:
    """A question for an object.

    >>> question("orange", "official"), question("orange", "strict")
    ('Is there an orange in the imange?', 'Is there an orange in the image?')
    """
    if name.startswith(tuple("aeiou")):
        old, new = ("a", "an") if mode == "official" else (" a {}", " an {}")
        template = template.replace(old, new)
    return template.format(name)


def _absent(
    image: str, candidates: Sequence[str], names: Sequence[str], taken: set[str], rng: random.Random
) -> str:
    """The first candidate that is not taken, or, as in the official code, draws until one fits."""
    for name in candidates:
        if name not in taken:
            return name
    if taken.issuperset(names):
        every = "every object of the data set is in this image or asked for already"
        raise InputError(f"{image}: {every}")
    while (name := rng.choice(names)) in taken:
        pass
    return name
