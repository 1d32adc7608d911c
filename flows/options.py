"""What can be said about one retraining: the fields of Prefect's form, the options of the command.

What a retraining computes is said in params.yaml. Each field has bounds and a text here, once: the
same text stands beside it in Prefect's form and in `--help`.
"""

from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from adapt import environment

LONGEST_REASON = 80  # characters: it becomes part of a run's name
DAY, FORTNIGHT = 24 * 60, 14 * 24 * 60  # minutes
MINUTE = 60.0  # seconds


class Retraining(BaseModel):
    """One retraining."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    reason: Annotated[str, Field(max_length=LONGEST_REASON)] = ""
    """say in the run's name why it takes place, as in "nightly\""""
    force: bool = False
    """run every stage, also those whose inputs have not changed"""
    dry_run: bool = False
    """say what would run and why, and stop"""
    promote: bool = True
    """let the champion move when the gate agrees"""
    stages: tuple[str, ...] = ()
    """run only these stages, and what they need; the gate is asked when nothing else is due"""
    revision: Annotated[str, Field(max_length=250)] = ""
    """retrain the pipeline of this git revision, in a folder of its own"""
    recipe: Annotated[str, Field(max_length=80)] = ""
    """retrain with the settings of this recipe of recipes/, in a folder of its own"""
    timeout_minutes: Annotated[int, Field(ge=1, le=FORTNIGHT)] = DAY
    """stop a stage, with all its processes, when it takes longer"""
    wait_minutes: Annotated[int, Field(ge=0, le=FORTNIGHT)] = 0
    """wait so long for another retraining of this workspace to end, instead of giving up at once"""
    approval_minutes: Annotated[int, Field(ge=0, le=FORTNIGHT)] = DAY
    """keep the run open so long for a person's approval, where the gate requires one"""

    @field_validator("reason", "revision", "recipe")
    @classmethod
    def _is_one_line(cls, text: str, info: ValidationInfo) -> str:
        if not text.isprintable() or (info.field_name != "reason" and text.startswith("-")):
            raise ValueError("must be one line that can be printed, and not begin with a dash")
        return text.strip()

    @property
    def timeout_seconds(self) -> float:
        """How long a stage may take."""
        return self.timeout_minutes * MINUTE


def parse(arguments: Sequence[str] | None, text: str | None) -> Retraining:
    """`Retraining` from the command line, whose --help begins with `text`."""
    done = "0 done (a refusal by the gate is a normal ending)"
    codes = f"exit code: {done}, 1 a stage failed, 2 a mistake in what you gave, 130 stopped"
    parser = environment.parser("flows.retrain", text, epilog=codes)
    for name, field in Retraining.model_fields.items():
        _add(parser, name, field.default, field.description or "")
    given = vars(parser.parse_args(arguments))
    try:
        return Retraining(**given)
    except ValidationError as error:
        problem = error.errors()[0]
        reason = problem["msg"].removeprefix("Value error, ")
        parser.error(f"--{str(problem['loc'][0]).replace('_', '-')}: {reason}")


def _add(parser: ArgumentParser, name: str, default: Any, text: str) -> None:
    """A field as an option: a switch, a number, a text, or names with commas between them."""
    add, flag = parser.add_argument, f"--{name.replace('_', '-')}"
    if default is True:
        add(f"--no-{flag[2:]}", dest=name, action="store_false", help=f"do not {text}")
    elif default is False:
        add(flag, action="store_true", help=text)
    elif isinstance(default, int):
        add(flag, type=int, default=default, help=f"{text} (default: {default})", metavar="N")
    elif isinstance(default, str):
        add(flag, default=default, help=text, metavar="TEXT")
    else:
        add(flag, type=_names, default=default, help=text, metavar="A,B")


def _names(text: str) -> tuple[str, ...]:
    """
    >>> _names("data, base")
    ('data', 'base')
    """
    return tuple(name.strip() for name in text.split(",") if name.strip())
