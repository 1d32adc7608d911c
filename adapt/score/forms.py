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
    own         answers id, response; truth a split file of ours, or the folder of `test.parquet`
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
from adapt.score import chair, coco, judged, layout, object_halbench, own, pope, rows
from adapt.score.content import named, shown
from adapt.score.ids import Ids
from adapt.score.layout import Layout
from adapt.score.rows import Row, by_id, by_known_id
from adapt.score.scored import Mode, Scored


@dataclass(frozen=True)
class File:
    """A file of answers, and what its columns are called here."""

    path: Path
    rename: Mapping[str, str]

    def rows(self, columns: Layout) -> list[Row]:
        """Its rows."""
        return rows.read(self.path, self.rename, columns)


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

    def mentioned(caption: str) -> list[str]:
        return chair.mentions(caption, listed, variant, "official").objects

    index, images = _of_images(file.rows(layout.CHAIR), truth, listed, mentioned)
    captions = {image: row.text("caption") for image, row in index.items()}
    score = partial(chair.score, list(captions.items()), images.objects, listed, variant)
    tables = [*coco.files(truth), synonyms or chair.OWN_LIST]
    return Answers(
        score, list(captions), list(captions.values()), tables, _images_left_out(index, images)
    )


def read_objhal(file: File, truth: Path, synonyms: Path | None) -> Answers:
    """Captions, one an image; all or none have the objects that a language model has listed."""
    listed = chair.read_synonyms(synonyms or chair.OWN_LIST)
    mentioned = partial(object_halbench.of_text, synonyms=listed, mode="official")
    index, images = _of_images(file.rows(layout.OBJHAL), truth, listed, mentioned)
    extracted = any(row.has(name) for row in index.values() for name in layout.EXTRACTED)
    captions = [_caption(image, row, extracted) for image, row in index.items()]
    score = partial(object_halbench.score, captions, images.objects, listed)
    tables = [*coco.files(truth), synonyms or chair.OWN_LIST]
    texts = [caption.text for caption in captions]
    return Answers(score, list(index), texts, tables, _images_left_out(index, images))


def read_amber(file: File, truth: Path, similarity: Path | None, lemmas: Path | None) -> Answers:
    """AMBER's own form, descriptions and yes/no answers in one file or not."""
    table = file.rows(layout.AMBER)
    amber = amber_.Amber.read(truth, similarity, lemmas)
    annotated = truth / "annotations.json"
    index = by_known_id(table, "id", Ids(map(str, amber.annotations), amber.pictures()), annotated)
    unsorted = {int(key): row.text("response") for key, row in index.items()}
    responses = dict(sorted(unsorted.items()))
    paths = [*(truth / name for name in amber_.FILES), *filter(None, (similarity, lemmas))]
    tables = [path for path in paths if path.is_file()]
    keys, texts = list(map(str, responses)), list(responses.values())
    score = partial(amber_.score, responses, amber)
    return Answers(score, keys, texts, tables, _of_amber(responses, amber), scale=100)


def read_pope(file: File, truth: Path, parser: pope.Parser) -> Answers:
    """Answers to the questions of a POPE file, all of them or some."""
    table = file.rows(layout.VCD if parser == "vcd" else layout.POPE)
    asked = by_id(rows.read(truth, layout=layout.POPE_QUESTIONS), "question_id")
    index = by_known_id(table, "question_id", Ids(asked), truth)
    names = ("answer", "text") if parser == "vcd" else ("answer",)
    answers = {key: row.text(*names) for key, row in index.items()}
    questions = {key: _question(row, key) for key, row in asked.items()}
    keys = [key for key in questions if key in answers]
    score = partial(pope.score, answers, questions, parser)
    notes = _left_out("questions", len(keys), len(questions))
    return Answers(score, keys, [answers[key] for key in keys], [truth], notes)


def read_mmhal(file: File, truth: Path | None) -> Answers:
    """A judge's replies to MMHal's questions, in their order."""
    verdicts = replies(file)
    answers = rows.read(truth, layout=layout.MMHAL_ANSWERS) if truth else []
    texts = [row.text(*layout.TEXTS) for row in answers]
    if truth and len(texts) != len(verdicts):
        other = f"{named(file.path)} {len(verdicts)} verdicts"
        raise InputError(f"{named(truth)}: has {len(texts)} answers, and {other}")
    notes = []
    if len(verdicts) != 96:
        order = "MMHal has 96 questions, whose types follow from their order"
        notes = [f"{order}; here are {len(verdicts)} verdicts"]
    keys = [str(number) for number in range(len(verdicts))]
    return Answers(partial(judged.mmhal, verdicts), keys, texts, [truth] if truth else [], notes)


def replies(file: File) -> list[str]:
    """What a judge has written about each answer, in order."""
    return [_reply(row) for row in file.rows(layout.MMHAL)]


def read_hallusion(file: File, truth: Path | None) -> Answers:
    """HallusionBench's records with the judge's verdicts."""
    index = _by_question(file.rows(layout.HALLUSION))
    questions = _by_question(rows.read(truth, layout=layout.HALLUSION)) if truth else {}
    if truth:
        known = by_known_id(index.values(), "question", Ids(questions), truth)
        index = {
            key: Row(row.where, {**questions[key].cells, **row.cells}) for key, row in known.items()
        }
    index = dict(sorted(index.items()))
    score = partial(judged.hallusion, list(map(_verdict, index.values())))
    answered = [row for row in index.values() if row.has("model_prediction")]
    texts = [row.text("model_prediction") for row in answered]
    notes = _left_out("questions", len(index), len(questions) or len(index))
    return Answers(score, list(index), texts, [truth] if truth else [], notes)


def read_own(file: File, truth: Path) -> Answers:
    """Answers to a split of ours, all of its questions or some."""
    # These two load pyarrow and Pillow, which the other benchmarks can do without.
    from adapt.data.schema import read_vocabulary
    from adapt.data.tables import read_split

    table, split = file.rows(layout.OWN), truth / "test.parquet" if truth.is_dir() else truth
    questions = read_split(split)
    listed = split.parent / "vocabulary.json"
    vocabulary = read_vocabulary(listed)
    words = own.Words.of(questions)
    if vocabulary:
        words = own.Words(vocabulary.objects, vocabulary.colours, listed.name)
    index = by_known_id(table, "id", Ids(question.id for question in questions), split)
    answers = {key: row.text("response") for key, row in index.items()}
    keys = [question.id for question in questions if question.id in answers]
    unknown = [q.id for q in questions if q.kind == "describe" and q.objects is None]
    notes = _left_out("questions", len(keys), len(questions))
    if without := len(answers.keys() & unknown):
        problem = "are of pictures whose objects nobody knows: not in chair_i, hal, cover and cog"
        notes.append(f"{without} descriptions {problem}")
    score = partial(own.score, answers, questions, words)
    tables = [split, *([listed] if vocabulary else [])]
    return Answers(score, keys, [answers[key] for key in keys], tables, notes, scale=100)


def _of_images(
    table: Sequence[Row],
    truth: Path,
    listed: chair.Synonyms,
    mentioned: Callable[[str], Sequence[str]],
) -> tuple[dict[str, Row], coco.Images]:
    """Captions by image, and what is there by COCO's categories and reference captions."""
    spelled = [row.id("image_id") for row in table]
    images = coco.read(truth, coco.Reading(spelled, listed.mended.__getitem__, mentioned))
    index = by_known_id(table, "image_id", images.ids, truth)
    return dict(sorted(index.items())), images


def _images_left_out(index: Mapping[str, Row], images: coco.Images) -> list[str]:
    """Of a table's images; COCO has tens of thousands, of which nobody captions all."""
    described = sum(image in index for image in images.listed)
    return _left_out("images", described, len(images.listed), "caption")


def _of_amber(responses: Mapping[int, str], amber: amber_.Amber) -> list[str]:
    """Descriptions and questions are tasks of their own: of one that is answered, all belong."""
    notes = []
    for kind, task in amber.tasks().items():
        if answered := len(task.intersection(responses)):
            answer = "response" if kind == "descriptions" else "answer"
            notes += _left_out(kind, answered, len(task), answer)
    return notes


def _caption(image: str, row: Row, extracted: bool) -> object_halbench.Caption:
    # RLHF-V's reader removes the word too.
    text = row.text("caption", "answer", "text").replace("Assistant:", "").strip()
    phrases = tuple(row.texts(*layout.EXTRACTED)) if extracted else None
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
    keys = [{"question": "_".join(map(row.id, layout.HALLUSION_KEY))} for row in table]
    named = [Row(row.where, {**row.cells, **key}) for row, key in zip(table, keys, strict=True)]
    return by_id(named, "question")


def _verdict(row: Row) -> judged.Verdict:
    ids = {name: row.id(name) for name in layout.HALLUSION_KEY[1:]}
    return judged.Verdict(
        **ids,
        category=row.choice("category", ("VD", "VS")),
        visual_input=row.choice("visual_input", "012"),
        truth=row.choice("gt_answer", "01") == "1",
        check=row.choice("gpt4v_output_gpt_check", "012"),
        same=ids["figure_id"] != "0" and row.choice("same", "01") == "1",
    )


def _left_out(things: str, answered: int, asked: int, answer: str = "answer") -> list[str]:
    note = f"{asked - answered} of {asked} {things} have no {answer} and are left out"
    return [note] if answered != asked else []
