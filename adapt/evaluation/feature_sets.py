"""Does a further signal add to the early warning? Sets of features, beside the default detector.

The question is asked of visual mass and the token's own probability, which carry what the default
detector knows: what does a detector of these two gain from

* `prelim`: attention to the answer's own earlier tokens. Published as the prelim attention score
  (PAS, arXiv 2511.11502, CVPR 2026) of the first layer, mean over heads; the mean over layers
  stands beside it, as for visual mass [ours];
* `similarity`: the token's hidden state against those of the picture's patches
  (`adapt/attention/similarity.py`, arXiv 2604.04863, CVPR 2026);
* `both`;
* `position`, the control: attention to earlier tokens grows with their number, so a gain that the
  position alone gives as well is none of attention's.

Each set is fitted on the same validation words and judged on the same test words and draws as the
default detector, so that differences are paired. It warns of nobody: `detector.json` and the
figures show the default one.
"""

from collections.abc import Mapping

import pandas as pd

from adapt.attention.settings import PRELIM, SIGNALS, SIMILARITY
from adapt.evaluation import early_warning
from adapt.metrics.detection import Calibration, Detector, Report
from adapt.params import InputError

SINGLE = {**dict.fromkeys(PRELIM, 1), **dict.fromkeys(SIMILARITY, -1)}
"""The further signals, and which way risk rises with them."""
DIRECTIONS = {name: (name, sign) for name, sign in SINGLE.items()}

BASIS = "mass_probability"
_BASIS = ("mass", "logprob")
_NEAREST = ("nearest_middle", "nearest_last")  # as published; `overall_*` is what it argues against
_WHOLE = (*SIGNALS, "logprob")
SETS = {
    BASIS: _BASIS,
    f"{BASIS}_position": (*_BASIS, "position"),
    f"{BASIS}_prelim": (*_BASIS, *PRELIM),
    f"{BASIS}_similarity": (*_BASIS, *_NEAREST),
    f"{BASIS}_both": (*_BASIS, *PRELIM, *_NEAREST),
    "attention_probability_both": (*_WHOLE, *PRELIM, *_NEAREST),
}
"""Name and features of each set."""
AGAINST = {
    **{name: BASIS for name in SETS if name.startswith(f"{BASIS}_")},
    "attention_probability_both": "attention_probability",
}
"""What each set is compared with: itself without what was added."""


def check(tokens: pd.DataFrame, file: str) -> None:
    """InputError for a table of tokens that was written without the further signals."""
    if missing := [name for name in SINGLE if name not in tokens]:
        problem = f"has no column {missing[0]}: it is of an earlier version"
        raise InputError(f"{file}: {problem}; run the answer stage again")


def fitted(tokens: pd.DataFrame) -> dict[str, Detector]:
    """A detector for each set, none where there is a `problem`."""
    return early_warning.fitted(tokens, SETS)


def report(
    tokens: pd.DataFrame, detectors: Mapping[str, Detector], *, resamples: int, seed: int
) -> Report:
    """Every measure of the further signals and of the sets; empty where there is a `problem`."""
    return early_warning.judged(tokens, detectors, DIRECTIONS, resamples, seed)


def metrics(
    default: Report, further: Report, calibrated: Mapping[str, Calibration]
) -> dict[str, float]:
    """AUROC of signals and sets, each set's lead over what it adds to, and calibration errors.

    `default`: the report of the default detectors, on the same draws.
    """
    values = {f"auroc_{name}": of["auroc"].point for name, of in further.items()}
    both = {**default, **further}
    for name, other in AGAINST.items():
        if name in both and other in both:
            lead = both[name]["auroc"].minus(both[other]["auroc"])
            key = f"{name}_above_{other}"
            values |= {key: lead.point, f"{key}_low": lead.low, f"{key}_high": lead.high}
    errors = {f"calibration_error_{name}": c.error for name, c in calibrated.items()}
    return values | (errors if further else {})
