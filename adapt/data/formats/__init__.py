"""Published formats of preference and evaluation data, one small file each; `detection` lists them.

A format says by which columns it is recognised and maps a record to rows with our column names.
"""
