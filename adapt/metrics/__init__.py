"""What training and evaluation count with: objects in answers, CHAIR, POPE, and the bootstrap.

Imports `params` and `data.schema` at most; needs numpy alone.
"""
