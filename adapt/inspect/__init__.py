"""The command `python -m adapt.inspect MODEL`: can this model be aligned, and how does it look?

May import everything up to `adapt.evaluation`; nothing imports it.
"""
