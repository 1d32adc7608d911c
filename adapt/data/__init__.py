"""The data that everything reads: the record, its validation, the splits, and the drawn world.

May import `adapt.params`, `adapt.progress` and `adapt.files` only.
"""
