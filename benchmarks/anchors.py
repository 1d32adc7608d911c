"""Visual anchors per second: one image at a time and in batches, from maps that are already there.

    python -m benchmarks.anchors [--sizes 7b] [--batch 1 16]

Random attention maps of the first tokens at the layout of LLaVA-1.5: 24 x 24 patches, 12 to 40
layers. Sides: batches of one grid through `anchors`, and `mixed`, the largest batch with images of
four different grids (one pass per grid).
"""

import time
from collections.abc import Callable

import torch

from adapt.attention.anchor import anchors, by_grid
from adapt.attention.layout import Layout, View
from benchmarks.sides import arguments, by_turns, ratios, spread, write

SIZES = {"small": 12, "7b": 32, "13b": 40}  # layers
GRIDS = ((24, 24), (16, 36), (18, 32), (12, 48))  # 576 patches each
INNER = 10  # calls behind one figure


def layout_of_grids(batch: int, grids: tuple[tuple[int, int], ...], device: str) -> Layout:
    """One image of 576 tokens per sample, of the given grids in turn."""
    columns = tuple(range(20, 596))
    views = tuple(View(b, 0, "whole", grids[b % len(grids)], columns) for b in range(batch))
    return Layout(torch.tensor([columns] * batch, device=device), views)


def side(
    batch: int, layers: int, grids: tuple[tuple[int, int], ...], device: str
) -> Callable[[], float]:
    """Anchors per second of one call's worth of images."""
    maps_BLN = torch.rand(batch, layers, 576, device=device)
    patches = by_grid(layout_of_grids(batch, grids, device))
    debias = {grid: torch.rand(576, device=device) for grid in grids}

    def run() -> float:
        start = time.perf_counter()
        for _ in range(INNER):
            anchors_BN = anchors(maps_BLN, patches, debias)
        if anchors_BN.is_cuda:
            torch.cuda.synchronize()
        return INNER * batch / (time.perf_counter() - start)

    return run


def main() -> None:
    """Measure, print and write."""
    parser = arguments(__doc__.splitlines()[0], list(SIZES), ["small", "7b", "13b"], repeats=30)
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 16])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for size in options.sizes:
        layers = SIZES[size]
        sides = {f"batch {n}": side(n, layers, GRIDS[:1], options.device) for n in options.batch}
        most = max(options.batch)
        sides[f"batch {most}, mixed"] = side(most, layers, GRIDS, options.device)
        base = next(iter(sides))
        with torch.inference_mode():
            rates = by_turns(sides, options.repeats, size, warm_up=3)
        rows += [
            {
                "layers": str(layers),
                "side": name,
                "anchors per second": spread(rates[name], 0),
                f"/ {base}": spread(ratios(rates, name, base), 2),
            }
            for name in sides
        ]
    spreads = f"median (quartiles) of {options.repeats} turns of {INNER} calls"
    notes = [f"576 patches, fp32; {spreads}. More is better."]
    write("anchors", "Anchors per second", notes, rows, options)


if __name__ == "__main__":
    main()
