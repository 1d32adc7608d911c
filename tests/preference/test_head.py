"""A scale of the logits that TRL's output layer applies and the model does not."""

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from adapt.params import InputError
from adapt.preference.head import check_head
from adapt.preference.losses import Weights
from tests.support.preference_rows import NONE, adapt_trainer, rows

ONE = Weights(**{**NONE, "dpo": 1.0})


def with_text_config(base: str, folder: Path, **values: float) -> str:
    shutil.copytree(base, folder)
    content = json.loads((folder / "config.json").read_text())
    content["text_config"] |= values
    (folder / "config.json").write_text(json.dumps(content))
    return str(folder)


def uneven() -> list[dict[str, Any]]:
    """Rows whose first answer is much shorter than what it is preferred to."""
    made = rows()
    made[0] |= {"chosen": "a", "rejected": "a red car , " * 9}
    return made


@pytest.mark.parametrize("data", [None, "uneven"])
@pytest.mark.parametrize("name", ["logit_scale", "final_logit_softcapping"])
def test_a_scale_that_the_model_does_not_apply_is_named(base, tmp_path, name, data):
    scaled = with_text_config(base, tmp_path / "scaled", **{name: 0.0625})
    off = {"logit_scale": "1", "final_logit_softcapping": "null"}[name]
    advice = f"leave out {name} 0.0625 of its text_config; set {name} to {off} in config.json"
    with pytest.raises(InputError, match=f"^model type llava: the loss .* {advice}$"):
        adapt_trainer(scaled, tmp_path, ONE, data=uneven() if data else None)


def test_a_scale_of_one_is_none(base, tmp_path):
    trainer = adapt_trainer(
        with_text_config(base, tmp_path / "one", logit_scale=1.0), tmp_path, ONE
    )
    assert trainer.model.config.text_config.logit_scale == 1.0
    check_head(trainer)


def test_other_logits_for_no_known_reason_are_refused_too(base, tmp_path):
    trainer = adapt_trainer(base, tmp_path, ONE)
    trainer._outputs = partial(halved, trainer._outputs)
    with pytest.raises(InputError, match="and no scale in its text_config says why"):
        check_head(trainer)


def halved(outputs: Any, *arguments: Any) -> Any:
    found = outputs(*arguments)
    return dataclasses.replace(found, log_probs=found.log_probs / 2)
