"""DVC's remotes are not believed: what is pulled from them is hashed before it is used.

DVC does that only where a remote says `verify = true`, which it has no default for; without it, a
file that was changed on the remote is pulled as if it were the one that was pushed. So the setting
is made, in `.dvc/config.local`, for every remote that says nothing of it. Who has written
`verify = false` keeps it.
"""

import re
import subprocess
import sys
from configparser import Error, RawConfigParser
from pathlib import Path

from adapt.params import InputError
from flows.process import child_environment

FILES = ("config", "config.local")  # the later one has the last word
_REMOTE = re.compile(r"'?remote \"(.+)\"'?$")


def verify(root: Path) -> list[str]:
    """Let all remotes of a workspace verify; what was set, in sentences (none the second time)."""
    done = []
    for name in silent(root):
        words = ("-m", "dvc", "remote", "modify", "--local", name, "verify", "true")
        command, env = [sys.executable, *words], child_environment({})
        set_ = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
        if set_.returncode:
            last = (set_.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise InputError(f"remote {name} cannot be told to verify: {last}")
        done.append(f"remote {name}: what is pulled is verified from now on (.dvc/config.local)")
    return done


def silent(root: Path) -> list[str]:
    """The remotes of a workspace that do not say whether they verify, in order of their names."""
    names, said = set(), set()
    for file in FILES:
        config = RawConfigParser(strict=False)
        try:
            config.read(root / ".dvc" / file, encoding="utf-8")
        except (Error, UnicodeDecodeError):
            return []  # DVC itself says what is wrong with it
        for section in config.sections():
            if found := _REMOTE.match(section):
                names.add(found[1])
                said |= {found[1]} if config.has_option(section, "verify") else set()
    return sorted(names - said)
