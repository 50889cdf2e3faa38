"""The real service over the fake engine: `bentoml serve tests.serving.fake_service:EnrichmentLight`.

Each process of the server imports this file, and asks the two boundaries only when it serves.
"""

from __future__ import annotations

import models.store
import runners.engines
from service import EnrichmentLight
from tests.serving import fake

__all__ = ["EnrichmentLight"]

models.store.find = fake.find
runners.engines.load = fake.load
