"""Readers of files that others wrote: rows as a stream, in memory that does not grow with a file.

May import `adapt.params`, `adapt.files` and each other only.
"""
