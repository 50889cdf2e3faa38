"""Whether the service can listen on its address."""

from __future__ import annotations

import errno
import socket
from typing import Final

_WHY_NOT: Final = {
    errno.EADDRINUSE: "another program listens there: end it (`ss -ltnp` names it), or set PORT to a free port",
    errno.EADDRNOTAVAIL: "this machine has no such address: set HOST to one that it has, or to 0.0.0.0 for all of them",
    errno.EACCES: "this user may not: set PORT to one above 1023",
}


class AddressUnusable(RuntimeError):
    """The service can't listen on its address. The text says why, and what to do."""


def try_address(host: str, port: int) -> None:
    """Raise AddressUnusable if a server could not listen on this address. host: an IP address."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Circus does
        try:
            trial.bind((host, port))
        except OSError as error:
            raise AddressUnusable(unusable(host, port, error)) from error


def unusable(host: str, port: int, error: OSError) -> str:
    """Return the text for an address that a server could not listen on."""
    return f"it can't listen on port {port} of {host}: {_WHY_NOT.get(error.errno or 0, error.strerror)}"
