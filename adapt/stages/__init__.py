"""The stages of `dvc.yaml`, one file each: `Config`, and `run(...) -> metrics`.

A stage imports the room behind it when it runs; nothing but `adapt.launch` imports a stage.
"""
