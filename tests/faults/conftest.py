"""Prefect makes its home when it is imported: as in `tests/flows`, where it is thrown away."""

from tests.flows import conftest  # noqa: F401
