"""Services of infra/compose.yaml as processes of this machine: their commands, variables, checks.

There is no container here, so what containers add is replaced: names of hosts by loopback, fixed
ports by free ones, the object store by a folder.
"""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from flows.process import end
from tests.support import limits, workspace

FILE = workspace.ROOT / "infra" / "compose.yaml"
VARIABLE = re.compile(r"\$\{(\w+)(?::([?-])([^}]*))?\}")


@cache
def content() -> dict[str, Any]:
    """The file as it stands."""
    return dict(yaml.safe_load(FILE.read_text(encoding="utf-8")))


def filled(text: str, env: Mapping[str, str]) -> str:
    """`${NAME:?problem}` and `${NAME:-default}` filled in as Compose does."""

    def value(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        if env.get(name):
            return env[name]
        assert kind == "-", f"{name} is needed: {rest}"
        return str(rest)

    return VARIABLE.sub(value, text)


@dataclass(frozen=True)
class Here:
    """How a service of the file runs on this machine: with `env` for Compose, some texts replaced
    in command and healthcheck, and some variables set.
    """

    name: str
    env: Mapping[str, str]
    replaced: Mapping[str, str]
    set: Mapping[str, str] = field(default_factory=dict)

    def _text(self, text: object) -> str:
        done = filled(str(text), self.env)
        for before, after in self.replaced.items():
            done = done.replace(before, after)
        return done

    @property
    def command(self) -> list[str]:
        words = [self._text(word) for word in content()["services"][self.name]["command"]]
        return [str(Path(sys.executable).parent / words[0]), *words[1:]]

    @property
    def variables(self) -> dict[str, str]:
        given = content()["services"][self.name]["environment"]
        return {key: filled(str(value), self.env) for key, value in given.items()} | dict(self.set)

    def is_healthy(self) -> bool:
        """What the healthcheck of the file says."""
        kind, *words = content()["services"][self.name]["healthcheck"]["test"]
        assert kind == "CMD"
        words = [sys.executable if word == "python" else self._text(word) for word in words]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    @contextmanager
    def running(self, folder: Path) -> Iterator[None]:
        """The service while the block runs, healthy before it begins."""
        env = workspace.environment(folder, {**self.variables, "HOME": str(folder)})
        with (folder / f"{self.name}.log").open("w") as log:
            process = subprocess.Popen(
                self.command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True
            )
        try:
            limits.until(self.is_healthy, self.name, limits.SERVER_START_S)
            yield
        finally:
            end(process.pid)
            process.wait()
