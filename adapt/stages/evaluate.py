"""Stage `evaluate`: the answers of base and tuned model judged, plain and with steering.

Pure over the tables of stage `answer` and the ground truth of the splits; loads no model and takes
seconds. Hallucination (CHAIR_i, Hal, Cog) and what the model still says (Cover, length), yes/no
questions as POPE, colour questions, and the attention-degradation curves; benchmarks by their own
programs. Early warning: detectors of hallucinated words, fitted on what the base model says of the
validation split, judged on the test split. What the data has no truth for is left out, and a line
says so: without known objects there are still lengths, curves and panels.

Writes `judged.parquet` (every answer of the test split with what it mentions, hallucinated words
marked), `curves.csv` by position and `degradation.csv` by relative position (a column per arm and
signal), `detector.json` (fitted on the base model's words) and `detector_tuned.json` (on the tuned
model's own, by which it is served), `detection.csv` and `calibration.csv` (how well it warns),
`figures/` and before / after `panels/`; of benchmarks `benchmarks.parquet` (counts by image),
`benchmarks.json` (variants and tables) and `benchmark_curves.csv`.
"""

from pathlib import Path

from adapt.evaluation.settings import Config
from adapt.progress import Log


def run(config: Config, results: Path, out: Path, log: Log) -> dict[str, float]:
    """Judge the four arms and draw them; see the module docstring."""
    from adapt.evaluation import report

    return report.write(config, results / "answer", results / "data" / "splits", out)


if __name__ == "__main__":
    from adapt.launch import launch

    launch("evaluate")
