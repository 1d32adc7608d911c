"""The one way text is made: batched answers, watched and steered, and the tables of a whole split.

May import `adapt.models`, `adapt.attention`, `adapt.benchmarks` and what lies below.
"""
