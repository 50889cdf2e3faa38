"""Reports the outcomes of an import as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from models.card import Loss
from models.catalogue import CATALOGUE, ModelName

State = Literal["imported", "already there", "untrained stand-in", "failed"]

_HEADINGS = ("model", "state", "from", "MB", "sha256", "largest difference from the original", "s")


@dataclass(frozen=True)
class Outcome:
    """The outcome of one model's import. size: of the weights in bytes. seconds: without waiting for other models."""

    name: ModelName
    state: State
    seconds: float
    origin: str = ""
    size: int = 0
    sha256: str = ""
    tolerance: Mapping[str, float] = field(default_factory=dict)
    problem: str = ""
    int8: Loss | None = None


def table(outcomes: Iterable[Outcome]) -> str:
    """Return the outcomes as a table of plain text, in the catalogue's order."""
    ordered = sorted(outcomes, key=lambda outcome: list(CATALOGUE).index(outcome.name))
    rows = [_HEADINGS, *(_row(outcome) for outcome in ordered)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join(_line(row, widths) for row in rows)


def losses(outcomes: Iterable[Outcome]) -> list[str]:
    """Return one line for each calibrated model: its loss in int8, and whether it is served in int8."""
    return [
        f"{outcome.name} in int8 against f32, {outcome.int8.pictures} pictures: {outcome.int8}; {_verdict(outcome)}"
        for outcome in outcomes
        if outcome.int8 is not None
    ]


def _verdict(outcome: Outcome) -> str:
    if outcome.int8 is None or outcome.int8.broken:
        return f"out of bounds (**): served in int8 only where ENRICHMENT_INT8_MODELS names {outcome.name}"
    return "within the bounds of docs/understand/accuracy.md: served in int8 on OpenVINO"


def _row(outcome: Outcome) -> tuple[str, ...]:
    return (
        outcome.name,
        outcome.state.upper() if outcome.state in ("untrained stand-in", "failed") else outcome.state,
        outcome.origin,
        f"{outcome.size / 1e6:.1f}" if outcome.size else "",
        outcome.sha256[:12],
        ", ".join(f"{metric} {value:.0e}" for metric, value in outcome.tolerance.items()),
        f"{outcome.seconds:.1f}",
    )


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
