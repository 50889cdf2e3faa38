"""Reports the outcomes of an import as a table for the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from models.card import Loss
from models.catalogue import CATALOGUE, ModelName

State = Literal["imported", "already there", "untrained stand-in", "missing", "failed"]

#: Exit codes of the command line. 2 is argparse's, for a wrong command line.
ALL, NONE, SOME = 0, 1, 3

_WITHOUT_MODEL: Final = ("missing", "failed")
_HEADINGS = ("model", "state", "from", "MB", "sha256", "largest difference from the original", "s", "what to do")


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

    @property
    def in_vain(self) -> bool:
        """Whether this import did not do what was asked."""
        return self.state in _WITHOUT_MODEL


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """Return ALL if every model was imported, SOME if only a part was, NONE if none was."""
    in_vain = sum(outcome.in_vain for outcome in outcomes)
    if not in_vain:
        return ALL
    return NONE if in_vain == len(outcomes) else SOME


def command(name: ModelName, *, source: bool) -> str:
    """Return the shell command that imports a model. source: with the place of the weights, for the user to fill in."""
    python = Path(sys.executable)
    if python.is_relative_to(Path.cwd()):
        python = python.relative_to(Path.cwd())
    return f"{python} -m models.import_models {name}{' --source PATH-OR-URL' if source else ''}"


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
        outcome.state.upper() if outcome.in_vain or outcome.state == "untrained stand-in" else outcome.state,
        outcome.origin,
        f"{outcome.size / 1e6:.1f}" if outcome.size else "",
        outcome.sha256[:12],
        ", ".join(f"{metric} {value:.0e}" for metric, value in outcome.tolerance.items()),
        f"{outcome.seconds:.1f}",
        _remedy(outcome),
    )


def _remedy(outcome: Outcome) -> str:
    if outcome.state == "failed":
        return f"read above why; then {command(outcome.name, source=False)}"
    if outcome.state in ("missing", "untrained stand-in"):
        return f"get {CATALOGUE[outcome.name].homepage}; then {command(outcome.name, source=True)}"
    return ""


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
