"""Cures for defects of the pinned BentoML, each guarded by a test in tests/runners/test_bentoml_cures.py.

The third and fourth of the known defects are cured where they bite: the keep-alive race in api/link.py, results of the
wrong length in runners/runner.py.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, Final

from bentoml._internal.marshal.dispatcher import CorkDispatcher
from opentelemetry import context
from opentelemetry.instrumentation import asgi
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

# BentoML closes the session between two services after 100 requests or 300 s, with other calls still on it: 5 % of the
# requests fail at concurrency 8, 26 % at 32. Numbers that are never reached. The age must be a float.
RUNNER_CONNECTION: Final[dict[str, Any]] = {"max_requests": 2**31, "max_age": 1e9}


class Dispatch:
    """How many batches of a model are under way at a time, at most. To be set before the first call."""

    batches_at_a_time: ClassVar[int] = 1


async def dispatch_promptly(self: CorkDispatcher[Any, Any]) -> None:
    """CorkDispatcher.controller without what holds calls back: what is queued when a place becomes free is a batch.

    The original waits for company on purpose during its first calls, which it calls training, and later for as long as
    batches have waited on average, its own waits among them: a 7 ms call took 180 ms after a burst of 32, and 67 ms a
    minute later. While a batch runs it looks a thousand times a second whether it has ended.
    """
    free = asyncio.Semaphore(Dispatch.batches_at_a_time)
    self._sema = free  # type: ignore[assignment] # outbound_call releases it
    running: set[asyncio.Task[None]] = set()
    while True:
        await free.acquire()
        async with self._wake_event:
            await self._wake_event.wait_for(self._queue.__len__)
        task = asyncio.create_task(self.outbound_call(tuple(self._get_inputs())))
        running.add(task)
        task.add_done_callback(running.discard)


class FreshTraces(OpenTelemetryMiddleware):
    """The middleware that makes a request's span, without what the request before has left behind.

    uvicorn starts the next request of a kept connection from within the one that ends, and so with its span as the
    current one: all requests of a connection became one trace. And where nothing is traced it makes no spans at all:
    BentoML records each request whatever the sampling, which costs a tenth of a short one.
    """

    tracing: ClassVar[bool] = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See OpenTelemetryMiddleware."""
        if not self.tracing:
            await self.app(scope, receive, send)
            return
        token = context.attach(context.Context())
        try:
            await super().__call__(scope, receive, send)
        finally:
            context.detach(token)


def install(*, tracing: bool) -> None:
    """Make BentoML use these from now on. To be called before it builds the service."""
    FreshTraces.tracing = tracing
    CorkDispatcher.controller = dispatch_promptly  # type: ignore[method-assign]
    asgi.OpenTelemetryMiddleware = FreshTraces  # type: ignore[misc]
