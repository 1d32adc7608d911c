"""Published benchmarks as evaluation data: questions and pictures as they come, answers to files.

Knows no model: `adapt.generation` asks the questions, `adapt.score` counts. May import
`adapt.score`, `adapt.data` and what lies below.
"""
