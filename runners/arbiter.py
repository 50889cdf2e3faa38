"""Our form of Circus' arbiter, the part of BentoML's supervisor that starts, watches and ends the processes."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from typing import Any, Final

import click
from bentoml._internal.utils.circus import Arbiter as BentoArbiter
from bentoml.serving import API_SERVER_NAME

from runners.signs import LAST_STOP, Heartbeat
from settings.address import unusable

logger = logging.getLogger("bentoml.enrichment.supervisor")  # BentoML gives handlers to its own namespace only

# BentoML looks for dead processes every ten seconds.
CHECK_S: Final = 2.0
_CONFLICT_S: Final = 0.1
# Containers get 40 s to stop. The request timeout (30 s by default), these 4 s of the API and then these 4 s of the
# runners fit into that.
_API_ENDS_S: Final = 4.0
_RUNNERS_END_S: Final = 4.0


class Arbiter(BentoArbiter):
    """BentoML's arbiter with cures.

    - It listens on unix sockets that only the owner can reach. BentoML's two TCP ports would let any user of the
      machine start programs.
    - It ends the runners after the API, which may still need them, and leaves their sockets until then.
    - It ends processes that hang: the API by its heartbeat, and any that does not end in time when the server ends.
    - It finds a dead process after 2 s instead of 10 s.
    """

    def __init__(
        self,
        heartbeat: Heartbeat,
        request_timeout_s: float,
        watchers: Any,
        *,
        endpoint: str,  # noqa: ARG002
        pubsub_endpoint: str,  # noqa: ARG002
        **options: Any,
    ) -> None:
        folder = tempfile.mkdtemp(prefix="bentoml-circus-")
        sockets = {"endpoint": f"ipc://{folder}/control", "pubsub_endpoint": f"ipc://{folder}/events"}
        super().__init__(watchers, **{**options, **sockets, "check_delay": CHECK_S})
        self.exit_stack.callback(shutil.rmtree, folder, ignore_errors=True)
        self._heartbeat = heartbeat
        for watcher in watchers:
            watcher.graceful_timeout = _RUNNERS_END_S
        self._api = next(watcher for watcher in watchers if watcher.name == "service")
        self._api.graceful_timeout = request_timeout_s + _API_ENDS_S
        self._api.stop_signal = LAST_STOP

    def initialize(self) -> None:
        """Open the sockets. Raises ClickException, whose text click prints without a trace."""
        try:
            super().initialize()
        except OSError as error:  # the address was taken since `check_address`
            self.exit_stack.close()
            listening = self.sockets[API_SERVER_NAME]
            raise click.ClickException(unusable(listening.host, listening.port, error)) from error

    def start(self, cb: Callable[[Any], Any] | None = None) -> None:
        """Start the processes, and return when all have ended."""
        try:
            super().start(cb)
        finally:
            self.exit_stack.close()  # BentoML closes it as the shutdown begins, which removes the runners' sockets

    def stop(self) -> Any:
        """End all processes. While Circus respawns one, try again later, because it would reject the stop."""
        if self._exclusive_running_command is None:
            return super(BentoArbiter, self).stop()
        self.loop.call_later(_CONFLICT_S, self.stop)
        return None

    async def manage_watchers(self) -> None:
        """Start dead processes anew, and end an API that hangs."""
        hung = self._heartbeat.hung(CHECK_S)
        if hung is not None and hung in self._api.processes and not self._stopping:
            logger.error("the API (process %d) hangs: it is killed and restarted", hung)
            os.kill(hung, signal.SIGKILL)
        await super().manage_watchers()

    async def _stop_watchers(self, *arguments: Any, **options: Any) -> None:
        await super()._stop_watchers(watcher_iter_func=lambda reverse: [self._api])  # noqa: ARG005
        await super()._stop_watchers(*arguments, **options)
