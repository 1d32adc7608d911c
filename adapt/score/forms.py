"""The files in which each benchmark keeps answers and truth, read into what its metric takes.

    chair       answers image_id, caption; truth {image: objects}, or COCO's files (`coco`)
    amber       answers id, response; truth AMBER's folder
    pope        answers question_id, answer (VCD's parser: text, as its files have it); truth POPE's
                questions: question_id, image, label
    objhal      answers image_id, caption (or RLHF-V's answer or text) and, where a language model
                has listed the objects, extract_objs; truth as for chair
    mmhal       verdicts: the judge's replies in the order of the questions, as the OpenAI interface
                returns them, as texts, or as rows with judge; truth, only for the length: the
                answers, model_answer
    hallusion   answers with verdicts: category, subcategory, set_id, figure_id, question_id,
                visual_input, gt_answer, gpt4v_output_gpt_check, same; truth, only if they lack such
                a column: HallusionBench.json

An id that is missing, unknown or there twice is an `InputError` that names file and row. Answers
are put into the order of the truth, so that two files of answers are compared image by image.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from adapt.params import InputError
from adapt.score import amber as amber_
from adapt.score import chair, coco, judged, object_halbench, pope, rows
from adapt.score.rows import Row, by_id, require_known, shown
from adapt.score.scored import Mode, Scored

_KEY = ("category", "subcategory", "set_id", "figure_id", "question_id")
_EXTRACTED = ("extract_objs", "extracted_objects")


@dataclass(frozen=True)
class File:
    """A file of answers, and what its columns are called here."""

    path: Path
    rename: Mapping[str, str]

    def rows(self, bare: str | None = None) -> list[Row]:
        """Its rows; `bare` is the column of list items that are texts."""
        return rows.read(self.path, self.rename, bare)


@dataclass(frozen=True)
class Answers:
    """One file of answers, ready to be scored."""

    score: Callable[[Mode], Scored]
    keys: Sequence[str]  # what was answered, in order
    texts: Sequence[str]  # the answers, where the file has them
    tables: Sequence[Path]  # the files besides the answers that the metrics depend on
    notes: Sequence[str] = ()
    scale: float = 1  # what a ratio of one is in the metrics


def read_chair(file: File, truth: Path, synonyms: Path | None, variant: chair.Variant) -> Answers:
    """Captions, one an image."""
    listed = chair.read_synonyms(synonyms or chair.OWN_LIST)
    index = dict(sorted(by_id(file.rows(), "image_id").items()))
    captions = {image: row.text("caption") for image, row in index.items()}

    def mentioned(caption: str) -> list[str]:
        return chair.mentions(caption, listed, variant, "official").objects

    reading = coco.Reading(index, listed.mended.__getitem__, mentioned)
    true = _objects(truth, index, reading)
    score = partial(chair.score, list(captions.items()), true, listed, variant)
    tables = [*coco.files(truth), synonyms or chair.OWN_LIST]
    return Answers(score, list(captions), list(captions.values()), tables)


def read_objhal(file: File, truth: Path, synonyms: Path | None) -> Answers:
    """Captions, one an image; all or none have the objects that a language model has listed."""
    listed = chair.read_synonyms(synonyms or chair.OWN_LIST)
    index = dict(sorted(by_id(file.rows(), "image_id").items()))
    extracted = any(row.has(name) for row in index.values() for name in _EXTRACTED)
    captions = [_caption(image, row, extracted) for image, row in index.items()]
    mentioned = partial(object_halbench.of_text, synonyms=listed, mode="official")
    reading = coco.Reading(index, listed.mended.__getitem__, mentioned)
    true = _objects(truth, index, reading)
    score = partial(object_halbench.score, captions, true, listed)
    tables = [*coco.files(truth), synonyms or chair.OWN_LIST]
    return Answers(score, list(index), [caption.text for caption in captions], tables)


def read_amber(file: File, truth: Path, similarity: Path | None, lemmas: Path | None) -> Answers:
    """AMBER's own form, descriptions and yes/no answers in one file or not."""
    index = by_id(file.rows(), "id")
    unsorted = {row.whole("id"): row.text("response") for row in index.values()}
    amber = amber_.Amber.read(truth, similarity, lemmas)
    require_known(index, map(str, amber.annotations), "id", truth / "annotations.json")
    responses = dict(sorted(unsorted.items()))
    paths = [*(truth / name for name in amber_.FILES), *filter(None, (similarity, lemmas))]
    tables = [path for path in paths if path.is_file()]
    keys, texts = list(map(str, responses)), list(responses.values())
    return Answers(partial(amber_.score, responses, amber), keys, texts, tables, scale=100)


def read_pope(file: File, truth: Path, parser: pope.Parser) -> Answers:
    """Answers to the questions of a POPE file, all of them or some."""
    index, asked = by_id(file.rows(), "question_id"), by_id(rows.read(truth), "question_id")
    require_known(index, asked, "question_id", truth)
    names = ("answer", "text") if parser == "vcd" else ("answer",)
    answers = {key: row.text(*names) for key, row in index.items()}
    questions = {key: _question(row, key) for key, row in asked.items()}
    keys = [key for key in questions if key in answers]
    score = partial(pope.score, answers, questions, parser)
    notes = _left_out(len(keys), len(questions))
    return Answers(score, keys, [answers[key] for key in keys], [truth], notes)


def read_mmhal(file: File, truth: Path | None) -> Answers:
    """A judge's replies to MMHal's questions, in their order."""
    verdicts = [_reply(row) for row in file.rows(bare="judge")]
    answers = rows.read(truth) if truth else []
    texts = [row.text("model_answer", "answer", "text") for row in answers]
    if truth and len(texts) != len(verdicts):
        other = f"{file.path} {len(verdicts)} verdicts"
        raise InputError(f"{truth}: has {len(texts)} answers, and {other}")
    notes = []
    if len(verdicts) != 96:
        order = "MMHal has 96 questions, whose types follow from their order"
        notes = [f"{order}; here are {len(verdicts)} verdicts"]
    keys = [str(number) for number in range(len(verdicts))]
    return Answers(partial(judged.mmhal, verdicts), keys, texts, [truth] if truth else [], notes)


def read_hallusion(file: File, truth: Path | None) -> Answers:
    """HallusionBench's records with the judge's verdicts."""
    index = _by_question(file.rows())
    questions = _by_question(rows.read(truth)) if truth else {}
    if truth:
        require_known(index, questions, "question", truth)
        for key, row in index.items():
            index[key] = Row(row.where, {**questions[key].cells, **row.cells})
    index = dict(sorted(index.items()))
    score = partial(judged.hallusion, list(map(_verdict, index.values())))
    answered = [row for row in index.values() if row.has("model_prediction")]
    texts = [row.text("model_prediction") for row in answered]
    notes = _left_out(len(index), len(questions) or len(index))
    return Answers(score, list(index), texts, [truth] if truth else [], notes)


def _objects(truth: Path, index: Mapping[str, Row], reading: coco.Reading) -> coco.Truth:
    """What is in the images that are answered, by COCO's categories and reference captions."""
    true = coco.read(truth, reading)
    require_known(index, true, "image_id", truth)
    return true


def _caption(image: str, row: Row, extracted: bool) -> object_halbench.Caption:
    # RLHF-V's reader removes the word too.
    text = row.text("caption", "answer", "text").replace("Assistant:", "").strip()
    phrases = tuple(row.texts(*_EXTRACTED)) if extracted else None
    return object_halbench.Caption(image, text, phrases)


def _question(row: Row, key: str) -> pope.Question:
    label = row.text("label").strip().lower()
    if label not in ("yes", "no"):
        raise row.error(f"'label' is {shown(label)}; allowed: yes, no")
    return pope.Question(row.id("image") if row.has("image") else key, label == "yes")


def _reply(row: Row) -> str:
    if not row.has("choices"):
        return row.text("judge")
    content: Any = row.get("choices")
    for step in (0, "message", "content"):
        try:
            content = content[step]
        except (TypeError, KeyError, IndexError):
            raise row.error("'choices' has no text at [0]['message']['content']") from None
    if not isinstance(content, str):
        raise row.error(f"the judge's reply is {shown(content)}, not a text")
    return content


def _by_question(table: Sequence[Row]) -> dict[str, Row]:
    keys = [{"question": "_".join(map(row.id, _KEY))} for row in table]
    named = [Row(row.where, {**row.cells, **key}) for row, key in zip(table, keys, strict=True)]
    return by_id(named, "question")


def _verdict(row: Row) -> judged.Verdict:
    ids = {name: row.id(name) for name in _KEY[1:]}
    return judged.Verdict(
        **ids,
        category=row.choice("category", ("VD", "VS")),
        visual_input=row.choice("visual_input", "012"),
        truth=row.choice("gt_answer", "01") == "1",
        check=row.choice("gpt4v_output_gpt_check", "012"),
        same=ids["figure_id"] != "0" and row.choice("same", "01") == "1",
    )


def _left_out(answered: int, asked: int) -> list[str]:
    note = f"{asked - answered} of {asked} questions have no answer and are left out"
    return [note] if answered != asked else []
