"""A served model watched without labels: what is logged of its answers, and whether they drift.

`signals` are the numbers that are kept of an answer, `recorder` logs them while the model serves,
`log` is where they lie; `profile` holds the same numbers of the validation split, made when a model
is promoted, and `drift` compares the two.
"""
