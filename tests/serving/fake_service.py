"""The real service over the fake engine: `bentoml serve tests.serving.fake_service:EnrichmentLight`.

Each process of the server imports this file, and asks the two boundaries only when it serves.
"""

from __future__ import annotations

import os

import models.store
from runners import engine_choice
from service import EnrichmentLight
from tests.serving import fake, fake_gpu

if os.environ.get(fake_gpu.WANTED):
    fake_gpu.install()

__all__ = ["EnrichmentLight"]

models.store.find = fake.find
engine_choice.load = fake.load
