"""Runs and models in MLflow: what was computed, from what, how it ended; which model is champion.

`runs` are of stages and of whole retrainings. What is recorded of one goes into a `journal`, points
of its curves through `steps` (or, on a cluster, `live`), and waits for nobody. The `sender`, a
process of its own, empties journals into MLflow (`drain`, `outbox`): `curves` gives it each point
once, `results` what a results folder puts into a run, `refusals` is what MLflow does not take.
`store` is where runs are kept, `lineage` where a result came from; models are in `adapt.registry`.
`moving` copies all of it elsewhere (`transfer`, `versions`), and `home` keeps the addresses of a
store right whose folder was moved. Stages know `progress.Log` only; `base` also asks that and
`store` where a registered model is its source. Imported by `adapt.launch`, `adapt.cluster`, that
stage and `flows`.
"""
