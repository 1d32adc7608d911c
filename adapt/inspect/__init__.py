"""The command `python -m adapt.inspect MODEL`: can this model be aligned, and what would it cost?

May import everything up to `adapt.evaluation`; nothing imports it.
"""
