from __future__ import annotations

import socket

import pytest

from settings.address import AddressUnusable, try_address


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1"])
def test_a_free_port_can_be_used_afterwards_and_a_taken_one_is_named(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(AddressUnusable, match=rf"can't listen on port {port} of .*: another program listens there"):
            try_address(host, port)
    try_address(host, port)
    socket.create_server((host, port), family=family).close()


def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(AddressUnusable, match=r"of 192\.0\.2\.7: this machine has no such address: set HOST"):
        try_address("192.0.2.7", 8096)


def test_any_other_reason_is_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    def bind(*_: object) -> None:
        raise OSError(105, "No buffer space available")

    monkeypatch.setattr(socket.socket, "bind", bind)
    with pytest.raises(AddressUnusable, match="No buffer space available"):
        try_address("127.0.0.1", 8096)
