"""Pictures on other machines: fetched from origins that `serve.urls` lists, and from no other.

A listed *name* that leads to an address of the own network is refused, so that nobody's DNS opens
what only this machine can reach; a listed address of that kind was meant. The address that was
checked is the one that is connected to. Redirects stay within the list, and bytes and seconds are
bounded.
"""

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Sequence
from urllib.parse import SplitResult, urljoin, urlsplit

from adapt.serving.api_errors import ApiError, too_large
from adapt.serving.settings import MIB

REDIRECTS = 3
BLOCK = 1 << 16
MOVED = (301, 302, 303, 307, 308)
PORTS = {"http": 80, "https": 443}


def fetched(
    url: str, param: str, origins: Sequence[str], picture_mib: int, seconds: float
) -> bytes:
    """The bytes behind a URL; `ApiError` where its origin is not listed, or it gives none."""
    deadline = time.monotonic() + seconds
    for _ in range(REDIRECTS + 1):
        parts = _allowed(url, param, origins)
        try:
            moved, content = _got(parts, param, picture_mib, deadline)
        except (OSError, ssl.SSLError, http.client.HTTPException, ValueError) as error:
            why = f"its server gives no picture ({type(error).__name__})"
            raise _unfetched(param, why) from None
        if moved is None:
            return content
        url = urljoin(url, moved)
    raise _unfetched(param, "its server redirects too often")


def _unfetched(param: str, why: str) -> ApiError:
    return ApiError(f"{param}: not fetched, {why}", param=param, code="invalid_image_url")


def _allowed(url: str, param: str, origins: Sequence[str]) -> SplitResult:
    """The parts of a URL whose origin is listed."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or PORTS.get(parts.scheme, 0)
    except ValueError:
        raise _unfetched(param, "this is no URL") from None
    known = [_origin(urlsplit(origin)) for origin in origins]
    if parts.username or parts.password or (parts.scheme, host, port) not in known:
        listed = "its origin is not among those" if origins else "there is no origin"
        raise _unfetched(param, f"{listed} that serve.urls lists; send it as a data URL")
    return parts


def _origin(parts: SplitResult) -> tuple[str, str, int]:
    return parts.scheme, parts.hostname or "", parts.port or PORTS.get(parts.scheme, 0)


def _address(host: str, port: int, param: str) -> str:
    """The address to connect to, checked: a name may not lead into the own network."""
    try:
        ipaddress.ip_address(host)
        return host
    except ValueError:
        pass
    found = [str(one[4][0]) for one in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    is_meant = host == "localhost"
    for address in found:
        if not is_meant and not ipaddress.ip_address(address.partition("%")[0]).is_global:
            raise _unfetched(param, "its name leads to an address of the own network")
    return found[0]


def _got(
    parts: SplitResult, param: str, picture_mib: int, deadline: float
) -> tuple[str | None, bytes]:
    """Where a redirect leads, or None, and the bytes that came."""
    scheme, host, port = _origin(parts)
    left = deadline - time.monotonic()
    if left <= 0:
        raise _unfetched(param, "its server is too slow")
    plain = socket.create_connection((_address(host, port, param), port), timeout=left)
    with plain:
        opened: socket.socket = plain
        if scheme == "https":
            opened = ssl.create_default_context().wrap_socket(plain, server_hostname=host)
        connection = http.client.HTTPConnection(host, port, timeout=left)
        connection.sock = opened
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", path, headers={"Accept": "image/*", "Connection": "close"})
        answer = connection.getresponse()
        if answer.status in MOVED:
            return answer.getheader("Location") or "", b""
        if answer.status != http.client.OK:
            raise _unfetched(param, f"its server answers {answer.status}")
        return None, _read(answer, opened, param, picture_mib, deadline)


def _read(
    answer: http.client.HTTPResponse,
    opened: socket.socket,
    param: str,
    picture_mib: int,
    deadline: float,
) -> bytes:
    blocks: list[bytes] = []
    count = 0
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise _unfetched(param, "its server is too slow")
        if opened.fileno() >= 0:
            opened.settimeout(left)
        block = answer.read1(BLOCK)
        if not block:
            return b"".join(blocks)
        blocks.append(block)
        count += len(block)
        if count > picture_mib * MIB:
            raise too_large(f"{param}: a picture of more than {picture_mib} MiB", param)
