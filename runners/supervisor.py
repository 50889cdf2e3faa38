"""Fixes for BentoML's supervisor, the process of `bentoml serve` that starts the others, and checks of its options."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import click
from bentoml._internal.configuration.containers import BentoMLContainer

from runners.signs import Heartbeat
from settings import Settings
from settings.address import try_address


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


def install(settings: Settings) -> None:
    """Make `bentoml serve` start its processes with our Arbiter. Call it in the supervisor.

    tornado's loop, on which Circus watches its processes, keeps time by the monotonic clock from then on. After the
    machine's clock was put back by an hour, Circus would restart no dead process for an hour.
    """
    from bentoml._internal.utils import circus  # only the supervisor needs these, and has them loaded already
    from tornado.ioloop import IOLoop

    from runners.arbiter import Arbiter

    IOLoop.time = lambda _: time.monotonic()  # type: ignore[method-assign,assignment]
    heartbeat = Heartbeat(settings.watchdog.hung_s)
    circus.Arbiter = partial(Arbiter, heartbeat, settings.limits.request_timeout_s)  # type: ignore[misc,assignment]
