"""The export to TRL makes the batches that TRL makes of the form in its documentation."""

import torch
from datasets import Dataset
from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

from adapt.data.export import export
from adapt.data.pictures import open_picture
from adapt.data.schema import Preference, Turn
from tests.support.builders import llava
from tests.support.published import picture


def preference(number: int, **changes) -> Preference:
    good = {
        "id": f"a{number}",
        "image_id": f"i{number}",
        "images": (picture(number),),
        "kind": "describe",
        "history": (),
        "question": "describe the picture.",
        "chosen": "a red car and a green tree.",
        "rejected": "a blue house.",
        "rejected_images": (),
        "chosen_score": None,
        "rejected_score": 1.0,
        "objects": None,
        "absent": (),
    }
    return Preference(**good | changes)


def documented(row: Preference) -> dict:
    """Messages of text, as in the example of TRL's collator."""
    turns = []
    for turn in row.history:
        turns += [{"role": "user", "content": turn.question}]
        turns += [{"role": "assistant", "content": turn.answer}]
    return {
        "images": [open_picture(content) for content in row.images],
        "prompt": [*turns, {"role": "user", "content": row.question}],
        "chosen": [{"role": "assistant", "content": row.chosen}],
        "rejected": [{"role": "assistant", "content": row.rejected}],
    }


def test_trl_makes_the_same_batch_of_the_export_as_of_its_own_form(tmp_path):
    earlier = (Turn(question="is there a red car?", answer="no, there is no car in it."),)
    rows = [preference(0), preference(1, history=earlier, question="a blue house?")]
    export("trl", rows, tmp_path / "trl.parquet")
    data = Dataset.from_parquet(str(tmp_path / "trl.parquet"), cache_dir=str(tmp_path / "cache"))
    collate = DataCollatorForVisionPreference(llava()[1])
    ours = collate([data[0], data[1]])
    theirs = collate([documented(row) for row in rows])
    assert ours.keys() == theirs.keys()
    for name in theirs:
        assert torch.equal(ours[name], theirs[name]), name
