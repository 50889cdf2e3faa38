"""Chooses the models to evict, so that another model fits into the memory budget."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from models.catalogue import ModelName
from runners.residency.load_failure import DoesNotFit
from runners.residency.memory import Memory
from runners.residency.resident import Resident


@dataclass(frozen=True)
class Policy:
    """The settings of residency.

    budget_mb: 0 = no limit. min_residency_s: a model is not evicted for this long after its load.
    idle_ttl_s: an idle model is evicted after this time; 0 = never.
    preloaded: these models leave only by request.
    beside_context: the budget covers only the models; the CUDA context comes on top.
    """

    budget_mb: float
    min_residency_s: float
    idle_ttl_s: Mapping[ModelName, float]
    preloaded: frozenset[ModelName]
    beside_context: bool = False


class Budget:
    """Compares the budget with the measured memory of the process, and chooses the model to evict.

    Residency calls it on its thread and does the evicting.
    """

    def __init__(
        self,
        models: Mapping[ModelName, Resident],
        memory: Memory,
        policy: Policy,
        change: threading.Condition,
        is_stopping: Callable[[], bool],
    ) -> None:
        """change: the condition that guards `models`."""
        self._models = models
        self._memory = memory
        self._policy = policy
        self._change = change
        self._is_stopping = is_stopping

    @property
    def limit_mb(self) -> float:
        """The memory that the whole process may use, in MB; 0 = no limit. It grows once the CUDA context is known."""
        budget_mb = self._policy.budget_mb
        return budget_mb + self._memory.context_mb if budget_mb and self._policy.beside_context else budget_mb

    def to_evict(self, resident: Resident, wanted_mb: Callable[[], float]) -> Resident | None:
        """The model to evict next so that `wanted_mb()` fits; None if it fits already.

        Waits while all candidates are within their min_residency_s. Raises DoesNotFit, also if the runner stops.
        """
        return self._least_recently_used(resident) if self.check(resident, wanted_mb) else None

    def check(self, resident: Resident, wanted_mb: Callable[[], float]) -> bool:
        """Whether a model must be evicted. Raises DoesNotFit if evicting all candidates would not be enough."""
        budget_mb = self.limit_mb
        if not budget_mb or wanted_mb() <= budget_mb:
            return False
        self._memory.give_back()  # cached memory does not count
        wanted, evictable = wanted_mb(), self._evictable(resident)
        if wanted <= budget_mb:
            return False
        if not evictable or wanted - sum(other.most_mb for other in evictable) > budget_mb:
            raise DoesNotFit(
                f"{resident.name} does not fit: it takes {resident.memory_mb:.0f} MB, with it the process would "
                f"take {wanted:.0f} MB, and the budget is {budget_mb:.0f} MB; preloaded and staying: "
                f"{', '.join(self._staying(resident)) or 'none'}"
            )
        return True

    def _evictable(self, resident: Resident) -> list[Resident]:
        """The loaded models that may be evicted for `resident`: not preloaded, not itself."""
        return [
            other
            for name, other in self._models.items()
            if other is not resident and other.loaded is not None and name not in self._policy.preloaded
        ]

    def _least_recently_used(self, resident: Resident) -> Resident:
        """The least recently used candidate. Waits while all are within their min_residency_s. Raises DoesNotFit."""
        while True:
            with self._change:
                candidates = {other: other.loaded for other in self._evictable(resident) if other.loaded is not None}
                if self._is_stopping():
                    raise DoesNotFit(f"{resident.name} finds no room: the runner is being stopped")
                now = time.monotonic()
                protected = {other: loaded.since + self._policy.min_residency_s for other, loaded in candidates.items()}
                free = [other for other, until in protected.items() if until <= now]
                if free:
                    return min(free, key=lambda other: candidates[other].last_used)
                first = min(protected, key=lambda other: protected[other])
                if resident.loaded is None:  # a loaded model already serves
                    resident.explain(f"waiting for room: {first.name} was just loaded and stays a few seconds")
                self._change.wait(protected[first] - now)

    def _staying(self, resident: Resident) -> list[str]:
        return [
            f"{name} ({other.memory_mb or 0:.0f} MB)"
            for name, other in self._models.items()
            if other is not resident and other.loaded is not None and name in self._policy.preloaded
        ]
