"""Which columns each benchmark's rows have, by which its files are told from others."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Layout:
    """The columns of one benchmark, and what a file may call them.

    `id` is what the keys of {id: answer} are, "" where rows have no id; `answer` what a text that
    stands for a row is, "" where none does. `columns` are all that are read, None every one.
    `rename` maps a file's names to these.
    """

    id: str = ""
    answer: str = ""
    columns: Collection[str] | None = None
    rename: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def _known(self) -> frozenset[str]:
        own = {self.id, self.answer, *(self.columns or ())}
        return frozenset((own | self.rename.keys()) - {""})

    def knows(self, name: str) -> bool:
        """Whether a file's column of this name is one of the benchmark's."""
        return name in self._known

    def wants(self, name: str) -> bool:
        """Whether a file's column of this name is read."""
        return self.columns is None or self.knows(name)


HALLUSION_KEY = ("category", "subcategory", "set_id", "figure_id", "question_id")
EXTRACTED = ("extract_objs", "extracted_objects")  # objects that a language model has listed
TEXTS = ("model_answer", "answer", "text")  # MMHal's answers, as people call them
_VERDICT = ("visual_input", "gt_answer", "gpt4v_output_gpt_check", "same", "model_prediction")

CHAIR = Layout("image_id", "caption", ("image_id", "caption"))
OBJHAL = Layout("image_id", "caption", ("image_id", "caption", "answer", "text", *EXTRACTED))
AMBER = Layout("id", "response", ("id", "response"))
AMBER_ANNOTATIONS = Layout("id", "", ("id", "type", "truth", "hallu"))
AMBER_QUERIES = Layout("id", "", ("id", "image"))
POPE = Layout("question_id", "answer", ("question_id", "answer"))
VCD = Layout("question_id", "text", ("question_id", "answer", "text"))
POPE_QUESTIONS = Layout("question_id", "", ("question_id", "image", "label"))
MMHAL = Layout("", "judge", ("choices", "judge"))
MMHAL_ANSWERS = Layout("", "model_answer", TEXTS)
HALLUSION = Layout("", "", (*HALLUSION_KEY, *_VERDICT))
OWN = Layout("id", "response", ("id", "response"))
