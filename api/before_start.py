"""Checks and prepares the machine before `bentoml serve` starts its processes.

A failed check ends `bentoml serve` with one line that names the problem.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import runners
from api.heap import share_arenas
from api.keys import warn_if_open
from engines.errors import EngineError
from importing.at_start import import_at_start
from runners import Placement, Services, supervisor
from runners.loader import pinned_versions
from settings import SERVICE_NAME, Settings
from settings.address import AddressUnusable


def placement(settings: Settings) -> Placement:
    """The placement of the runners, as runners.placement. Ends the process if the settings contradict each other."""
    with _ending():
        return runners.placement(settings)


def prepare(settings: Settings, placement: Placement, services: Services) -> None:
    """Check the setup, and import weights if that is asked for. Ends the process if the setup can't work.

    Call it in the supervisor.
    """
    with _ending():
        supervisor.check_address()
        runners.check_start(settings, placement)
    share_arenas()
    supervisor.install(settings)
    warn_if_open(settings.server)
    if settings.import_at_start:
        import_at_start([name for name, service in services.items() if name not in pinned_versions(service.bento)])


@contextmanager
def _ending() -> Iterator[None]:
    """Exit with one line if the block raises AddressUnusable or EngineError."""
    try:
        yield
    except (AddressUnusable, EngineError) as error:
        sys.exit(f"{SERVICE_NAME} can't start: {error}")
