"""The parts of one `generate`: its configuration, what watches and steers it, how much fits.

`adapt.generation.answer` puts them together.
"""
