"""Preference tuning: a model's own answers become ranked pairs, and the pairs train the model.

`sample` makes pairs, which `pairs` keeps in a file; `fit` trains on them: `losses` has the
equations, `trainer` adds them up. Stages import `settings` (which needs no torch) at their top, and
`sample` or `fit` when they run; `flows` import `settings` alone.
"""
