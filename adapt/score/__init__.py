"""Published benchmarks over answers that exist: `python -m adapt.score`.

Imports `params`, `metrics` and `data` of `adapt`, and needs no torch.
"""
