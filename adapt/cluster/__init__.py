"""A stage on a Ray cluster: `submit` sends it there and brings its result back, `remote` runs it
there, `jobs` follows one Ray job, `storage` moves folders between machines.

Import `submit` and `storage` from stages and trainings that may run on a cluster.
"""
