"""Runs and models in MLflow: what was computed, from what, how it ended; which model is champion.

`store` is opened once and handed on; `runs` are of stages and of whole retrainings, `results` what
a results folder puts into one, `lineage` where it came from, `registry` the models. Stages know
`progress.Log` only; `base` also asks `registry` and `store` where a registered model is its source.
Imported by `adapt.launch`, `adapt.cluster`, that stage and `flows`.
"""
