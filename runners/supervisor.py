"""Cures and questions of BentoML's supervisor, the process of `bentoml serve` that starts the others."""

from __future__ import annotations

import shutil
import tempfile
from typing import Any

import click


def asked_host() -> str | None:
    """Return the `--host` of `bentoml serve`, which takes precedence over the service's own; None without it."""
    command = click.get_current_context(silent=True)
    host: str | None = command.params.get("host") if command else None
    return host


def control_by_unix_sockets() -> None:
    """Make Circus, BentoML's supervisor, listen on unix sockets that only the owner can reach.

    BentoML lets it listen on two TCP ports, by which any user of the machine could make it start programs.
    """
    from bentoml._internal.utils import circus  # only the supervisor needs it, and has it loaded already

    class Arbiter(circus.Arbiter):
        def __init__(self, watchers: Any, *, endpoint: str, pubsub_endpoint: str, **options: Any) -> None:  # noqa: ARG002
            folder = tempfile.mkdtemp(prefix="bentoml-circus-")
            super().__init__(
                watchers, endpoint=f"ipc://{folder}/control", pubsub_endpoint=f"ipc://{folder}/events", **options
            )
            self.exit_stack.callback(shutil.rmtree, folder, ignore_errors=True)

    circus.Arbiter = Arbiter  # type: ignore[misc]
