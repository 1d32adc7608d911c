"""Whether a model and a processor go together: one small picture and one question, once through."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from adapt.models.checkpoint.folder import foreign
from adapt.models.checkpoint.limits import within
from adapt.params import InputError

SECONDS = 20.0
TURN = {
    "role": "user",
    "content": [{"type": "image"}, {"type": "text", "text": "Describe the picture."}],
}


def check_together(model: Any, processor: Any, source: str | Path) -> None:
    """Raises InputError where the processor makes something else than the model takes.

    Each of them may be whole and belong to another size of picture, patch or vocabulary. Without a
    chat template there is nothing to ask.
    """
    if not processor.chat_template:
        return
    # 1. What the processor makes. A wrong number of tokens per picture may be any number.
    where = f"{source}: its processor cannot prepare a question about a picture of 48 x 32 pixels"
    with foreign(where):
        inputs = within(SECONDS, where, lambda: _inputs(processor))
    # 2. Words beyond the model's; on a GPU, reading one would end the whole process.
    largest, words = int(inputs["input_ids"].max()), len(model.get_input_embeddings().weight)
    if largest >= words:
        problem = f"its tokenizer makes token {largest}, and the model has words 0 to {words - 1}"
        raise InputError(f"{source}: {problem}; is it another model's?")
    # 3. What the model makes of it.
    kinds = {key: model.dtype for key, value in inputs.items() if value.is_floating_point()}
    taken = {key: value.to(model.device, kinds.get(key)) for key, value in inputs.items()}
    where = f"{source}: the model does not take what its processor makes"
    with foreign(where), torch.no_grad():
        logits = model(**taken).logits
    if not logits.isfinite().all():
        raise InputError(
            f"{source}: the model answers a plain question with infinite or no numbers"
        )


def _inputs(processor: Any) -> dict[str, torch.Tensor]:
    text = processor.apply_chat_template([TURN], add_generation_prompt=True, tokenize=False)
    picture = Image.linear_gradient("L").resize((48, 32)).convert("RGB")
    options = {"return_tensors": "pt", "add_special_tokens": False}
    return dict(processor(images=[[picture]], text=[text], **options))
