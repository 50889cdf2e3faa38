"""Continuous profiling with Pyroscope's client, on a thread that nothing else waits for."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import ModuleType
from typing import Final

from engines.marks import MARK
from settings import Pyroscope

logger = logging.getLogger("bentoml.enrichment.profiling")  # BentoML gives handlers to its own namespace only

RETRY_S: Final = 60.0
_CONNECT_S: Final = 3.0


class Profiler:
    """Profiles this process as soon as the server can be reached. Until then, it tries once a minute.

    The client alone would start at once and print an error every ten seconds.
    """

    def __init__(self, settings: Pyroscope, process: str) -> None:
        """process: the tag of this process, `api` or `runner`."""
        self._settings = settings
        self._process = process
        self._client: ModuleType | None = None
        if settings.enabled:
            threading.Thread(target=self._begin, name="pyroscope", daemon=True).start()

    @contextmanager
    def tagged(self, **tags: str) -> Iterator[None]:
        """Tag the samples of this thread within the block, and of threads that work for it (engines.marks.carried)."""
        tag = partial(self._tag, tags)
        token = MARK.set(tag)
        try:
            with tag():
                yield
        finally:
            MARK.reset(token)

    def _tag(self, tags: dict[str, str]) -> AbstractContextManager[None]:
        if self._client is None:
            return nullcontext()
        tagging: AbstractContextManager[None] = self._client.tag_wrapper(tags)
        return tagging

    def _begin(self) -> None:
        settings = self._settings
        tries = 0
        while (problem := self._problem()) is not None:
            if tries == 0:
                logger.warning(
                    "no profiling: Pyroscope at %s can't be reached (%s); trying again every %.0f s",
                    settings.url,
                    problem,
                    RETRY_S,
                )
            tries += 1
            time.sleep(RETRY_S)
        import pyroscope

        pyroscope.configure(
            application_name=settings.application_name,
            server_address=str(settings.url).rstrip("/"),
            tags={"process": self._process},
        )
        self._client = pyroscope
        logger.info("profiling to Pyroscope at %s as %s", settings.url, settings.application_name)

    def _problem(self) -> str | None:
        host, port = self._settings.url.host, self._settings.url.port
        try:
            with socket.create_connection((host or "", port or 80), timeout=_CONNECT_S):
                return None
        except OSError as error:
            return error.strerror or str(error)
