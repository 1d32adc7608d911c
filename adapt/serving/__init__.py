"""A registered version that answers: one core, and two doors in front of it.

`answerer` answers, and tells how risky each word is, while it answers; `bundle` is what a version
needs for that beside its weights. `mlmodel` and `loader_module` are MLflow's door.
"""
