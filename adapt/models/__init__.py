"""Models: loading and saving, prompts, identity, and the embedded default model with its training.

May import `adapt.attention`, `adapt.data`, `adapt.metrics` and what lies below them.
"""
