from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from models.catalogue import ModelName
from runners.residency.budget import Policy
from runners.residency.residency import Residency
from tests.runners.residency.world import NAMES, Make, World


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def make(world: World) -> Iterator[Make]:
    made: list[Residency] = []

    def make(
        budget_mb: float = 0,
        stay_s: float = 0,
        ttl_s: float = 0,
        preloaded: Sequence[ModelName] = (),
        names: Sequence[ModelName] = NAMES,
        beside_context: bool = False,
    ) -> Residency:
        policy = Policy(budget_mb, stay_s, dict.fromkeys(names, ttl_s), frozenset(preloaded), beside_context)
        made.append(Residency(names, world, world, policy))
        return made[-1]

    yield make
    for residency in made:
        residency.close()
