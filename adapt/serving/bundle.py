"""What a version of a registered model holds beside its weights, so that it can be asked.

    serving/serving.json         which model, how it answered, and how it is steered
    serving/detector.json        the early warning, fitted on its own words where these were enough
    serving/debias.safetensors   debias masks of the grids of patches that have appeared
    serving/vocabulary.json      the words that name things
    serving/profile.json         what its answers look like on the validation split, put there by
                                 a promotion (`adapt/watching/profile.py`)

All of it is JSON or safetensors: nothing that runs. A version without this folder, registered
before there was one, answers plainly and knows no risk.
"""

import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from adapt import params
from adapt.data.schema import read_vocabulary
from adapt.generation import asked, chosen
from adapt.generation.asked import AnsweredAs
from adapt.generation.known import Known
from adapt.generation.settings import SteerConfig
from adapt.metrics import detection
from adapt.metrics.detection import Detector
from adapt.names import one_line
from adapt.params import InputError, Settings
from adapt.serving.spoken import Vocabulary

FOLDER = "serving"
SERVED = "attention_probability"  # the variant of the detector that warns


Model = Literal["base", "tuned"]
WarnedBy = Literal["base", "tuned", "none"]
BASE: Model = "base"
DETECTORS = {"base": "detector.json", "tuned": "detector_tuned.json"}
"""Files of stage `evaluate`, by the model on whose words they were fitted."""


class Served(Settings):
    """`serving.json`. `prompt`: its version; `data`: DVC's hash of the splits, "" if unknown.

    `warned_by`: on whose words the detector was fitted; none: there is no detector.
    """

    version: Literal[1]
    weights: str
    prompt: str
    data: str
    answered: AnsweredAs
    steer: SteerConfig
    warned_by: WarnedBy


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What was read of a version's folder; `debias` is the file of masks."""

    served: Served
    detector: Detector | None
    vocabulary: Vocabulary | None
    debias: Path


def compose(results: Path, which: Model, data: str, folder: Path) -> Served:
    """Write `folder`/serving for a model of a workspace's results, as stage `answer` asked it."""
    answers, out = results / "answer", folder / FOLDER
    out.mkdir(parents=True)
    models = json.loads((answers / "models.json").read_text(encoding="utf-8"))
    # 1. The early warning: of its own words, or else of those of the model it came from.
    by = warned_by(results / "evaluate", which)
    fitted = results / "evaluate" / DETECTORS[which if by == "none" else by]
    shutil.copyfile(fitted, out / "detector.json")
    # 2. What decides its answers.
    shutil.copyfile(answers / asked.debias_file(which), out / "debias.safetensors")
    served = Served(
        version=1,
        weights=models[which],
        prompt=models[f"{which}_prompt"],
        data=data,
        answered=asked.read(answers),
        steer=chosen.rules(answers)[which],
        warned_by=by,
    )
    # 3. The words that name things; without known things there is no detector either.
    known = Known.of(results / "data" / "splits")
    if known.words.objects:
        words = json.dumps(dataclasses.asdict(known.words), indent=2, ensure_ascii=False)
        (out / "vocabulary.json").write_text(f"{words}\n", encoding="utf-8")
    content = json.dumps(served.model_dump(mode="json"), indent=2, ensure_ascii=False)
    (out / "serving.json").write_text(f"{content}\n", encoding="utf-8")
    return served


def can_compose(results: Path) -> bool:
    """Whether stages `answer` and `evaluate` have left what is served with a model."""
    needed = (results / "answer" / asked.FILE, results / "evaluate" / DETECTORS["tuned"])
    return all(path.exists() for path in needed)


def warned_by(evaluated: Path, which: Model) -> WarnedBy:
    """On whose words the detector was fitted that warns of a model: its own, if they are enough."""
    for name in dict.fromkeys((which, BASE)):
        if SERVED in detection.read(evaluated / DETECTORS[name]):
            return name
    return "none"


def read(folder: Path) -> Bundle | None:
    """That of a version's folder; None where it has none. InputError for what is damaged."""
    inside = folder / FOLDER
    file = inside / "serving.json"
    if not file.exists():
        return None
    try:
        content: dict[str, Any] = {FOLDER: json.loads(file.read_text(encoding="utf-8"))}
    except (OSError, ValueError) as error:
        raise InputError(f"{one_line(str(file))}: {one_line(str(error), 100)}") from None
    served = params.load(content, FOLDER, Served, str(file))
    detectors = detection.read(inside / "detector.json")
    words = read_vocabulary(inside / "vocabulary.json")
    return Bundle(
        served=served,
        detector=detectors.get(SERVED) if words else None,
        vocabulary=Vocabulary(words.objects) if words else None,
        debias=inside / "debias.safetensors",
    )
