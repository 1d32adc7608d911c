"""Finding words: whole words, longest form first, spans that point into the original text."""

from adapt.metrics.mentions import find, marked

WORDS = {
    "light": ("light", "lights"),
    "traffic light": ("traffic light",),
    "bus": ("bus", "buses"),
    "car": ("car",),
}


def names(text: str) -> list[str]:
    return [m.name for m in find(text, WORDS)]


def test_forms_repeats_and_case() -> None:
    assert names("A Bus, two BUSES and a car.") == ["bus", "bus", "car"]


def test_whole_words_only() -> None:
    assert names("a carpet, a busy scar, car2 and car_park") == []
    assert names("a car-like bus's (car)") == ["car", "bus", "car"]


def test_longest_form_wins() -> None:
    assert names("a traffic light and a light") == ["traffic light", "light"]


def test_nothing_to_find() -> None:
    assert names("") == [] and find("a car", {}) == ()


def test_spans_point_into_the_text_as_written() -> None:
    text = "İn a CAR"  # the first letter becomes two when lower-cased
    (mention,) = find(text, WORDS)
    assert text[slice(*mention.span)] == "CAR"


def test_marked_words() -> None:
    text = "a car, a bus and a car."
    assert (
        marked(text, [m.span for m in find(text, WORDS) if m.name == "car"])
        == "a **car**, a bus and a **car**."
    )
    assert marked(text, []) == text
