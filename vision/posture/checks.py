"""Checks of a measure against its limits, each with its slack and its wording."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple


class Unit(NamedTuple):
    """A measure's unit. clear: the distance to a limit that counts as clear."""

    name: str
    clear: float
    digits: int

    def say(self, value: float) -> str:
        return f"{round(value, self.digits) + 0.0:g}{self.name}"  # + 0.0 makes 0 of -0


DEGREES: Final = Unit("°", 20.0, 0)
TORSOS: Final = Unit(" torsos", 0.2, 2)
ARMS: Final = Unit(" arm lengths", 0.2, 2)


class Check(NamedTuple):
    """A measure that must be at least `least` and at most `most`. An unknown measure (NaN) fails.

    text: the measure in words, with {} for its value. meaning: what the limits stand for, such as "lying".
    """

    text: str
    value: float
    meaning: str
    least: float = -math.inf
    most: float = math.inf
    unit: Unit = TORSOS

    @property
    def slack(self) -> float:
        """Distance to the nearer limit: 1 is clear, 0 at the limit, negative if the check fails."""
        if math.isnan(self.value):
            return -math.inf
        return min(self.value - self.least, self.most - self.value) / self.unit.clear

    def __str__(self) -> str:
        say = self.unit.say
        if math.isinf(self.most):
            limits = f"from {say(self.least)}"
        else:
            limits = f"up to {say(self.most)}" if math.isinf(self.least) else f"{self.least:g} to {say(self.most)}"
        return f"{self.text.format(say(self.value))} ({self.meaning}: {limits})"


Checks = Sequence[Check]
NEVER: Final[Checks] = (Check("{}", math.nan, "never"),)  # of what can't be measured


def degrees(text: str, value: float, meaning: str, least: float = -math.inf, most: float = math.inf) -> Check:
    """A check of an angle."""
    return Check(text, value, meaning, least, most, DEGREES)


def slack(checks: Iterable[Check]) -> float:
    """The least slack: that of the check which would fail first."""
    return min((check.slack for check in checks), default=math.inf)


def met(checks: Iterable[Check]) -> bool:
    return all(check.slack >= 0 for check in checks)


def best(options: Iterable[Checks]) -> Checks:
    """Return the option with the largest slack."""
    return max(options, key=slack)


def sentence(checks: Iterable[Check]) -> str:
    """The checks as one sentence."""
    parts = [str(check) for check in checks]
    return ", and ".join((", ".join(parts[:-1]), parts[-1])) if len(parts) > 1 else "".join(parts)
