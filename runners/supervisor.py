"""Cures and questions of BentoML's supervisor, the process of `bentoml serve` that starts the others."""

from __future__ import annotations

import shutil
import tempfile
import time
from typing import Any

import click
from bentoml._internal.configuration.containers import BentoMLContainer

from settings.address import try_address, unusable


def asked_host() -> str | None:
    """Return the `--host` of `bentoml serve`, which takes precedence over the service's own; None without it."""
    host: str | None = _asked("host")
    return host


def check_address() -> None:
    """Raise AddressUnusable if `bentoml serve` could not listen on its address. Call it in the supervisor."""
    host, port = _asked("host"), _asked("port")
    try_address(host or BentoMLContainer.http.host.get(), port or BentoMLContainer.http.port.get())


def _asked(option: str) -> Any:
    command = click.get_current_context(silent=True)
    return command.params.get(option) if command else None


def keep_time() -> None:
    """Make tornado's loop, on which Circus watches its processes, keep time by the monotonic clock.

    After the machine's clock was put back by an hour, Circus would restart no dead process for an hour.
    """
    from tornado.ioloop import IOLoop  # only the supervisor needs it, and has it loaded already

    IOLoop.time = lambda _: time.monotonic()  # type: ignore[method-assign,assignment]


def control_by_unix_sockets() -> None:
    """Make Circus, BentoML's supervisor, listen on unix sockets that only the owner can reach.

    BentoML lets it listen on two TCP ports, by which any user of the machine could make it start programs.
    """
    from bentoml._internal.utils import circus  # only the supervisor needs these, and has them loaded already
    from bentoml.serving import API_SERVER_NAME

    class Arbiter(circus.Arbiter):
        def __init__(self, watchers: Any, *, endpoint: str, pubsub_endpoint: str, **options: Any) -> None:  # noqa: ARG002
            folder = tempfile.mkdtemp(prefix="bentoml-circus-")
            super().__init__(
                watchers, endpoint=f"ipc://{folder}/control", pubsub_endpoint=f"ipc://{folder}/events", **options
            )
            self.exit_stack.callback(shutil.rmtree, folder, ignore_errors=True)

        def initialize(self) -> None:
            try:
                super().initialize()
            except OSError as error:  # taken since `check_address`; click prints the text without a trace
                self.exit_stack.close()
                listening = self.sockets[API_SERVER_NAME]
                raise click.ClickException(unusable(listening.host, listening.port, error)) from error

    circus.Arbiter = Arbiter  # type: ignore[misc]
