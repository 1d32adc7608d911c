"""What is seen of rounds of retraining: the table, the chart, and which model is the best.

In `results/rounds/`: `table.md`, `table.csv` (a row for each round, seed and way of answering),
`rounds.png`, and `best.json`, which says for each seed which round is the best and how
`params.yaml` has to be set for the pipeline to repeat it.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from adapt.evaluation.comparison import COLUMNS, finished
from adapt.files import whole_folder
from adapt.names import figure_text
from adapt.params import Content
from flows.chain import Round, best_of

SHOWN = ("hal", "chair_i", "cover", "pope_f1", "colour_accuracy", "length")
HEADS = {
    **{"round": "round", "seed": "seed", "answers": "answers", "alpha": "alpha"},
    **{key: COLUMNS[key] for key in SHOWN},
    **{"pairs": "pairs", "seconds": "pairs and training, s", "best": "best"},
}
FOLDER = Path("results/rounds")


def write(root: Path, content: Content, chains: Mapping[int, Sequence[Round]]) -> str:
    """Write `results/rounds/` of chains by their seeds; returns the table in Markdown."""
    tops = {seed: chain[best_of([one.figures for one in chain])] for seed, chain in chains.items()}
    rounds = [one for chain in chains.values() for one in chain]
    long = pd.DataFrame([row for one in rounds for row in _rows(one, tops[one.seed])])
    text = markdown(long)
    shipped = [shipping(root, content, top) for top in tops.values()]
    with whole_folder(root / FOLDER) as out:
        (out / "table.md").write_text(text, encoding="utf-8")
        long.to_csv(out / "table.csv", index=False)
        (out / "best.json").write_text(json.dumps(shipped, indent=2) + "\n", encoding="utf-8")
        chart(long, out / "rounds.png")
    return text


def _rows(one: Round, top: Round) -> list[dict[str, Any]]:
    """One of plain answers, and one of steered ones where there are such."""
    cost: dict[str, float] = {}
    if one.pairs and one.training:
        seconds = one.pairs.seconds + one.training.seconds
        cost = {"pairs": one.pairs.metrics["pairs"], "seconds": seconds}
    named = {"round": one.number, "seed": one.seed}
    ways = zip(("plain", "steered"), one.scores, strict=False)
    return [
        {**named, "answers": way, **scores.metrics, **cost, "best": one is top}
        for way, scores in ways
    ]


def markdown(long: pd.DataFrame) -> str:
    """The table, a line for each row of `long`, of what is in `HEADS` and was measured.

    >>> rows = [{"round": 1, "seed": 7, "answers": "plain", "hal": 12.04, "best": True}]
    >>> print(markdown(pd.DataFrame(rows)), end="")
    | round | seed | answers | Hal % | best |
    | --- | --- | --- | --- | --- |
    | 1 | 7 | plain | 12.0 | yes |
    """
    names = [name for name in HEADS if name in long]
    lines = [[HEADS[name] for name in names], ["---"] * len(names)]
    lines += [[_cell(name, row[name]) for name in names] for row in long.to_dict("records")]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _cell(name: str, value: Any) -> str:
    if isinstance(value, str) or name in ("round", "seed"):
        return str(value)
    if name == "best":
        return "yes" if value else ""
    if pd.isna(value):
        return ""
    if name == "alpha":  # of 0 are the plain answers
        return f"{value:g}"
    return f"{value:.0f}" if name in ("pairs", "seconds") else f"{value:.1f}"


# ---- how to ship it ----------------------------------------------------------------------------


def shipping(root: Path, content: Content, top: Round) -> dict[str, Any]:
    """The best round, its model, and what to set so that the pipeline repeats its training."""
    start = top.before.training if top.before else None
    source = str(_shown(root, start.folder / "model")) if start else content["base"]["source"]
    images, skip = content["pairs"]["images"], content["pairs"]["skip"]
    model = _shown(root, top.plain.model.folder / "model")
    keys = {"seed": top.seed, "base.source": source}
    keys["pairs.skip"] = skip + max(0, top.number - 1) * images
    return {"round": top.number, "seed": top.seed, "model": str(model), "set": keys}


def _shown(root: Path, path: Path) -> Path:
    """As it can be written in params.yaml: relative to the workspace, where it lies inside."""
    return path.relative_to(root.resolve()) if path.is_relative_to(root.resolve()) else path


def advice(content: Content, shipped: Mapping[str, Any]) -> str:
    """What to do with the best round, in words; `shipped` is its entry of best.json."""
    of = f"Of seed {shipped['seed']}, "
    if not shipped["round"]:
        return f"{of}no round is better than the base on validation: nothing is to be shipped."
    now = {"seed": content["seed"], "base.source": content["base"]["source"]}
    now["pairs.skip"] = content["pairs"]["skip"]
    changes = {key: value for key, value in shipped["set"].items() if now[key] != value}
    steps = [f"    {key}: {value}" for key, value in changes.items()]
    to_set = "\n".join(["in params.yaml set", *steps, "and then"]) if steps else ""
    return (
        f"{of}round {shipped['round']} is the best: {shipped['model']}\n"
        f"To ship it, {to_set or 'params.yaml stays as it is:'} make run. "
        "It repeats that round as the pipeline's own training, on the same\n"
        "pairs (to the last bit with train.workers: 0; several workers add up in another order), "
        "compares it on\nthe test split with the model that it started from, and promotes it if "
        "the gate agrees."
    )


# ---- the chart ---------------------------------------------------------------------------------


def chart(long: pd.DataFrame, path: Path) -> None:
    """Hal against Cover, a dot for each round, joined by a line; upper left is best.

    A square is the base; a colour is a seed, steered answers are pale. Nothing is drawn where Hal
    or Cover was not measured.
    """
    if not {"hal", "cover"} <= set(long):
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    seeds = list(dict.fromkeys(long.seed))
    for (seed, way), rows in long.groupby(["seed", "answers"], sort=False):
        is_plain = way == "plain"
        style: dict[str, Any] = {"color": f"C{seeds.index(seed) % 10}"}
        style |= {"alpha": 1.0 if is_plain else 0.45, "ls": "-" if is_plain else "--"}
        axes.plot(
            rows.hal,
            rows.cover,
            marker="o",
            ms=7,
            label=figure_text(f"seed {seed}, {way}"),
            **style,
        )
        axes.plot(rows.hal[:1], rows.cover[:1], marker="s", ms=10, **style)
    for at, text, above in labels(long):
        axes.annotate(
            figure_text(text),
            at,
            xytext=(6, 6 if above else -14),
            textcoords="offset points",
            fontsize=9,
        )
    axes.margins(x=0.09, y=0.09)  # for the words beside the outermost
    finished(figure, axes, "rounds on the validation split; square: base; upper left is best", path)


def labels(long: pd.DataFrame) -> list[tuple[tuple[float, float], str, bool]]:
    """What stands beside the dots: where, the text, and whether above; below of steered answers.

    Only one where steering changes nothing, as with alpha 0: both dots are at one place.

    >>> row = {"seed": 7, "round": 0, "hal": 30.0, "cover": 95.0}
    >>> labels(pd.DataFrame([row | {"answers": way} for way in ("plain", "steered")]))
    [((30.0, 95.0), 'base', True)]
    """
    once = long.drop_duplicates(["seed", "round", "hal", "cover"])
    return [
        ((row["hal"], row["cover"]), str(row["round"] or "base"), row["answers"] == "plain")
        for row in once.to_dict("records")
    ]
