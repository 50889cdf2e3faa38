from __future__ import annotations

import socket

import click
import pytest
from bentoml._internal.utils import circus
from bentoml.serving import API_SERVER_NAME

from runners import supervisor


def test_a_port_that_is_taken_at_the_last_moment_is_told_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circus, "Arbiter", circus.Arbiter)  # put back after the test
    supervisor.control_by_unix_sockets()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        arbiter = circus.Arbiter(
            [],
            endpoint="tcp://127.0.0.1:1",
            pubsub_endpoint="tcp://127.0.0.1:2",
            sockets=[circus.create_circus_socket_from_uri(f"tcp://127.0.0.1:{port}", name=API_SERVER_NAME)],
        )
        with pytest.raises(click.ClickException, match=f"can't listen on port {port} of 127.0.0.1: another program"):
            arbiter.start()
