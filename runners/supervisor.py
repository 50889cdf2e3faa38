"""Cures and questions of BentoML's supervisor, the process of `bentoml serve` that starts the others."""

from __future__ import annotations

from functools import partial

import click

from runners.signs import Heartbeat
from settings import Settings


def asked_host() -> str | None:
    """Return the `--host` of `bentoml serve`, which takes precedence over the service's own; None without it."""
    command = click.get_current_context(silent=True)
    host: str | None = command.params.get("host") if command else None
    return host


def install(settings: Settings) -> None:
    """Make `bentoml serve` start its processes with our Arbiter. Call it in the supervisor."""
    from bentoml._internal.utils import circus  # only the supervisor needs these

    from runners.arbiter import Arbiter

    heartbeat = Heartbeat(settings.watchdog.hung_s)
    circus.Arbiter = partial(Arbiter, heartbeat, settings.limits.request_timeout_s)  # type: ignore[misc,assignment]
