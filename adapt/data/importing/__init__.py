"""What stage `data` does with a source: rows are checked, put into splits, and written.

Two passes over the source, so that memory does not grow with its pictures: the first checks every
row (`checking`, in worker processes) and keeps some hundred bytes of each; the second writes.
"""
