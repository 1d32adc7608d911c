"""Published benchmarks over answers that exist: `python -m adapt.score`.

Imports `params` and `metrics` of `adapt`, and needs no torch.
"""
