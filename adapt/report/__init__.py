"""One file that tells how a retraining went, or how two compare: for people who were not there.

`reading` asks MLflow for all that is shown; `telling` says it in words, `figures` in tables,
`charts` in SVG, `examples` in pictures and answers; `page` fills `page.html` with them.
"""
