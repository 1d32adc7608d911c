"""Registered models in MLflow: versions of checkpoint folders, and the memory of who was champion.

`registry` is what one asks; `ledger` is the log of decisions and what follows from it, `entries`
where it is kept; `settling` writes and lets aliases show it, `standing` looks, `found` notices what
people did by hand. `download` fetches a version; its `contents` are checked on the way in and out.
"""
