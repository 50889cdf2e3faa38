"""Who can reach the service: its addresses, and a warning if they are not this machine's alone."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeAlias

from settings import Settings

Address: TypeAlias = IPv4Address | IPv6Address

_LOCAL: Final[dict[int, Address]] = {4: IPv4Address("127.0.0.1"), 6: IPv6Address("::1")}
# Addresses reserved for documentation (RFC 5737, RFC 3849). Nothing is sent: connecting only selects the own address.
_ELSEWHERE: Final = {4: "192.0.2.1", 6: "2001:db8::1"}


def local_url(settings: Settings) -> str:
    """Return the service's URL for programs on this machine."""
    host = settings.server.host
    return _url(_LOCAL[host.version] if host.is_unspecified else host, settings.server.port)


def warning(settings: Settings) -> str | None:
    """Return a warning that others on the network can use the service; None if it listens on this machine alone."""
    server = settings.server
    if server.host.is_loopback:
        return None
    address = _own_address(server.host.version) if server.host.is_unspecified else server.host
    url = f"port {server.port} of this machine" if address is None else _url(address, server.port)
    managing = ", and load and unload its models (ENRICHMENT_MODEL_MANAGEMENT=true)" if server.model_management else ""
    asked = "It asks for an API key" if server.keys else "It asks for no key (ENRICHMENT_API_KEY sets one)"
    return (
        f"THE SERVICE LISTENS ON THE NETWORK (HOST={server.host}): everyone who reaches {url} may use it{managing}."
        f" {asked}, and pictures and answers are not encrypted on the way."
        " Let only your own network reach this port, or set HOST=127.0.0.1 for this machine alone."
    )


def _own_address(version: int) -> Address | None:
    """Return this machine's address on the network; None if it has no network."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as way_out:
        try:
            way_out.connect((_ELSEWHERE[version], 9))
        except OSError:
            return None
        host = way_out.getsockname()[0]
    return IPv4Address(host) if version == 4 else IPv6Address(host)


def _url(host: Address, port: int) -> str:
    return f"http://[{host}]:{port}" if host.version == 6 else f"http://{host}:{port}"
