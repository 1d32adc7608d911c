"""Ports of the loopback interface for servers that a test starts.

They lie below those that the kernel gives to outgoing connections: one of those may be taken by any
connection of the machine between the moment it was found free and the server's start.
"""

import random
import socket
from contextlib import ExitStack
from pathlib import Path

FIRST = 12_000
_OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free(count: int = 1) -> list[int]:
    """`count` different ports that nobody listens on, drawn at random: tests run side by side."""
    last = int(_OUTGOING.read_text().split()[0]) if _OUTGOING.exists() else 32_768
    drawn = random.SystemRandom().sample(range(FIRST, last), 50 * count)
    found = []
    with ExitStack() as stack:
        for port in drawn:
            opened = stack.enter_context(socket.socket())
            try:
                opened.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
            if len(found) == count:
                return found
    raise AssertionError(f"no {count} free ports among {len(drawn)}")
