"""A way over TCP that a test can cut: between a client and a server on loopback."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PIECE = 1 << 16


class Wire:
    """Carries bytes both ways between `address` and a server, until it is cut.

    What goes through it when it is cut is lost for ever, and nobody is told: neither end sees that
    its connection is gone. New connections are taken and lead nowhere until `mend`.
    """

    def __init__(self, server: tuple[str, int]) -> None:
        self._server, self._is_cut = server, threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._lost = 0  # connections opened before this number carry nothing any more
        self.address = "http://{}:{}".format(*self._listener.getsockname())
        threading.Thread(target=self._take, daemon=True).start()

    def cut(self) -> None:
        """From now on nothing gets through."""
        self._is_cut.set()

    def mend(self) -> None:
        """New connections are carried again; those from before stay dead."""
        self._lost = len(self._open)
        self._is_cut.clear()

    def close(self) -> None:
        """End all of it."""
        for one in [self._listener, *self._open]:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _take(self) -> None:
        with suppress(OSError):  # closed
            while True:
                inside, _ = self._listener.accept()
                outside = socket.create_connection(self._server)
                number = len(self._open)
                self._open += [inside, outside]
                for one, other in ((inside, outside), (outside, inside)):
                    work = threading.Thread(
                        target=self._carry, args=(one, other, number), daemon=True
                    )
                    work.start()

    def _carry(self, one: socket.socket, other: socket.socket, number: int) -> None:
        with suppress(OSError):
            while data := one.recv(PIECE):
                if self._is_cut.is_set() or number < self._lost:
                    continue  # swallowed
                other.sendall(data)
            if not self._is_cut.is_set() and number >= self._lost:
                other.shutdown(socket.SHUT_WR)


@contextmanager
def wire(host: str, port: int) -> Iterator[Wire]:
    """A way to this server."""
    made = Wire((host, port))
    try:
        yield made
    finally:
        made.close()
