"""Preference pairs: which answers to prefer, why, and where in the picture; stage `pairs`."""
