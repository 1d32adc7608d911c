"""A folder with nothing wrong, a copy to break, and how one is refused."""

import shutil

import pytest

from adapt.inspect import __main__ as inspect_command
from adapt.models.load import save
from adapt.params import InputError
from tests.support import tiny_world


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with nothing wrong."""
    folder = tmp_path_factory.mktemp("whole")
    save(tiny_world.model(), tiny_world.processor(), folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


@pytest.fixture
def refused(capsys):
    """A function from a folder and what loads it to the one line with which it is refused, by that
    function and by the command.
    """

    def line_of(folder, load):
        with pytest.raises(InputError) as error:
            load(folder)
        line = str(error.value)
        assert "\n" not in line and len(line) < 600 and str(folder) in line
        code = inspect_command.main([str(folder)])
        out, err = capsys.readouterr()
        assert code in (1, 2) and "Traceback" not in out + err
        if code == 2:
            lines = [text for text in err.splitlines() if text.startswith("adapt.inspect: ")]
            assert len(lines) == 1
        return line

    return line_of
