"""That the loss is of the model's own logits.

TRL's fused output layer works logits out again from the states of the decoder, and takes their
scale from the decoder's configuration. A vision-language model has an output layer of its own,
which may leave that scale out: then training would follow another distribution than answers do.

Shapes: K compared tokens, V vocabulary.
"""

import json
from typing import Any

import torch

from adapt.models.continued import is_per_token
from adapt.params import InputError
from adapt.preference.collate import NOT_INPUTS, chosen_half, part

KEPT = 8  # tokens that are compared, at the end of an answer
ABSOLUTE, RELATIVE = 0.1, 0.05  # rounding of 16-bit logits is smaller, a scale is larger
OFF = {
    "logit_scale": 1,
    "output_multiplier": 1,
    "lm_head_multiplier": 1,
    "logits_scaling": 1,
    "final_logit_softcapping": None,
}


def check_head(trainer: Any) -> None:
    """Raises InputError where the fused output layer and the model differ on the first row.

    Expects the trainer before its first step; changes neither modes nor random states.
    """
    model, row = trainer.model, _first_row(trainer)
    is_training = model.training
    model.eval()
    with torch.no_grad(), trainer.accelerator.autocast():
        fused_K = trainer._outputs(model, row).log_probs[0, -KEPT:]
        inputs = {key: value for key, value in row.items() if key not in NOT_INPUTS}
        logits_KV = model(**inputs, use_cache=False, logits_to_keep=KEPT + 1).logits[0, :-1]
    model.train(is_training)
    ids_K, is_answer_K = (row[name][0, -KEPT:] for name in ("input_ids", "completion_mask"))
    own_K = logits_KV.float().log_softmax(-1).gather(-1, ids_K[:, None])[:, 0]
    differ_K = (fused_K.float() - own_K).abs() > ABSOLUTE + RELATIVE * own_K.abs()
    if bool((differ_K & (is_answer_K > 0)).any()):
        raise InputError(_reason(model.config))


def _first_row(trainer: Any) -> dict[str, Any]:
    """The chosen answer of the first row behind its prompt, without padding."""
    batch = part(trainer.data_collator([trainer.train_dataset[0]]), guided=False)
    row, ids = trainer._prepare_inputs(chosen_half(batch)), batch["input_ids"][:1]
    length = int(row["completion_mask"][0].nonzero().max()) + 1
    return {k: v[:, :length] if is_per_token(v, ids) else v for k, v in row.items()}


def _reason(config: Any) -> str:
    text = config.get_text_config()
    found = {name: getattr(text, name, off) for name, off in OFF.items()}
    scales = [name for name, value in found.items() if value not in (None, OFF[name])]
    problem = f"model type {config.model_type}: the loss would be of other logits than its own"
    if not scales:
        return f"{problem}, and no scale in its text_config says why; it cannot be trained"
    named = " and ".join(f"{name} {found[name]}" for name in scales)
    values = " and ".join(f"{name} to {json.dumps(OFF[name])}" for name in scales)
    return f"{problem}, which leave out {named} of its text_config; set {values} in config.json"
