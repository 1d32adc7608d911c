"""The base model of these tests: random, saved once for each file."""

import pytest

from adapt.models.load import save
from tests.support import tiny_world


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("base")
    save(tiny_world.model(), tiny_world.processor(), folder)
    return str(folder)
