"""A stage on a Ray cluster. Stages and trainings that may run there import `submit` and `storage`.

`submit` brings a result back from there, where `remote` computes it; `jobs` follows one Ray job.
"""
