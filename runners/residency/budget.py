"""Who has to leave a runner process's memory so that another model fits."""

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
    """budget_mb: 0 = no limit; min_residency_s: how long a model just loaded may stay; idle_ttl_s: 0 = it stays.

    beside_context: the budget is the models' alone, and the CUDA context, which differs from GPU to GPU, comes on top.
    Pinned models neither leave for others nor for being idle.
    """

    budget_mb: float
    min_residency_s: float
    idle_ttl_s: Mapping[ModelName, float]
    pinned: frozenset[ModelName]
    beside_context: bool = False


class Budget:
    """Decides, and leaves the doing to runners.residency.residency, on whose thread it is asked.

    The budget is compared with what `memory` measures of the process, never with a sum of guesses.
    """

    def __init__(
        self,
        models: Mapping[ModelName, Resident],
        memory: Memory,
        policy: Policy,
        change: threading.Condition,
        is_stopping: Callable[[], bool],
    ) -> None:
        """`change` is the one that guards the models."""
        self._models = models
        self._memory = memory
        self._policy = policy
        self._change = change
        self._is_stopping = is_stopping

    @property
    def limit_mb(self) -> float:
        """What the whole process may take, as far as is known now; 0 = no limit."""
        budget_mb = self._policy.budget_mb
        return budget_mb + self._memory.context_mb if budget_mb and self._policy.beside_context else budget_mb

    def who_leaves(self, resident: Resident, wanted_mb: Callable[[], float]) -> Resident | None:
        """The model that has to leave next so that `wanted_mb()` fits; None: nobody has to.

        Waits while all that may leave were loaded just now. Raises DoesNotFit, also where the runner is being stopped.
        """
        return self._next_to_leave(resident) if self.check(resident, wanted_mb) else None

    def check(self, resident: Resident, wanted_mb: Callable[[], float]) -> bool:
        """Whether somebody has to leave. Raises DoesNotFit where that would not suffice: then nobody does."""
        budget_mb = self.limit_mb
        if not budget_mb or wanted_mb() <= budget_mb:
            return False
        self._memory.give_back()  # what is merely kept for later is nobody's need
        wanted, may_leave = wanted_mb(), self._may_leave(resident)
        if wanted <= budget_mb:
            return False
        if not may_leave or wanted - sum(other.most_mb for other in may_leave) > budget_mb:
            raise DoesNotFit(
                f"{resident.name} does not fit: it takes {resident.memory_mb:.0f} MB, with it the process would "
                f"take {wanted:.0f} MB, and the budget is {budget_mb:.0f} MB; preloaded and staying: "
                f"{', '.join(self._staying(resident)) or 'none'}"
            )
        return True

    def _may_leave(self, resident: Resident) -> list[Resident]:
        """The models in memory that are neither preloaded nor the one that room is wanted for."""
        return [
            other
            for name, other in self._models.items()
            if other is not resident and other.loaded is not None and name not in self._policy.pinned
        ]

    def _next_to_leave(self, resident: Resident) -> Resident:
        """The least recently used model that may leave; waits while all were loaded just now. Raises DoesNotFit."""
        while True:
            with self._change:
                candidates = {other: other.loaded for other in self._may_leave(resident) if other.loaded is not None}
                if self._is_stopping():
                    raise DoesNotFit(f"{resident.name} finds no room: the runner is being stopped")
                now = time.monotonic()
                protected = {other: loaded.since + self._policy.min_residency_s for other, loaded in candidates.items()}
                free = [other for other, until in protected.items() if until <= now]
                if free:
                    return min(free, key=lambda other: candidates[other].last_used)
                first = min(protected, key=lambda other: protected[other])
                if resident.loaded is None:  # else it serves already, and has nothing to explain
                    resident.explain(f"waiting for room: {first.name} was just loaded and stays a few seconds")
                self._change.wait(protected[first] - now)

    def _staying(self, resident: Resident) -> list[str]:
        return [
            f"{name} ({other.memory_mb or 0:.0f} MB)"
            for name, other in self._models.items()
            if other is not resident and other.loaded is not None and name in self._policy.pinned
        ]
