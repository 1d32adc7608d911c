"""Model folders as they come: read in whole, tried, and refused in one line where they are not.

`adapt.models.load` is the way in.
"""
