"""How do the two sides of benchmarks.compare compare, as tables and as a chart?"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
import psutil
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.load import Load
from benchmarks.raw_inference import RawInference
from models.catalogue import CATALOGUE, ModelName

SERVICE: Final = "service"
OTHER: Final = "other"  # the plain or the lean server
SIDES: Final = (OTHER, SERVICE)
IN_SHORT: Final = 8  # concurrent requests in the first table and the chart
SLOW_S: Final = 15.0  # cells with a longer first round are not repeated, except those of the first table
_COLOURS: Final = ("#9aa5b1", "#1f78c1", "#d9e2ec")

Key = tuple[ModelName, str, int]  # a model, a kind of image, concurrent requests


@dataclass
class Side:
    """A running server. cpu_s, answers: of the measured rounds only. peak: peak memory of its processes, in bytes."""

    name: str
    url: str
    pid: int
    cpu_s: float = 0.0
    answers: int = 0
    peak: int = 0

    def processes(self) -> list[psutil.Process]:
        """The server's processes."""
        root = psutil.Process(self.pid)
        return [root, *root.children(recursive=True)]

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        return sum(sum(process.cpu_times()[:2]) for process in self.processes())

    def look_at_memory(self) -> None:
        """Update the peak memory. Pages that processes share are counted once."""
        self.peak = max(self.peak, sum(process.memory_full_info().pss for process in self.processes()))


@dataclass
class Cell:
    """The rounds of each side, for one route, kind of image and concurrency."""

    rounds: dict[str, list[Load]] = field(default_factory=lambda: {side: [] for side in SIDES})

    @property
    def slow(self) -> bool:
        """Whether the first round took longer than SLOW_S, both sides together."""
        return sum(load.seconds for loads in self.rounds.values() for load in loads[:1]) > SLOW_S

    def rate(self, side: str) -> float:
        """Answers per second, median of the rounds."""
        return median(load.per_second for load in self.rounds[side])

    def ms(self, side: str, percent: float) -> float:
        """A percentile in milliseconds, over all answers of all rounds."""
        return float(np.percentile([each for load in self.rounds[side] for each in load.latencies], percent) * 1000)

    def failures(self, side: str) -> int:
        """The number of requests without a 200."""
        return sum(load.failures.total() for load in self.rounds[side])

    def rate_ratio(self) -> tuple[float, float, float]:
        """The service's rate divided by the other's: of the medians, and the smallest and largest of single rounds."""
        pairs = [a.per_second / b.per_second for a, b in zip(self.rounds[SERVICE], self.rounds[OTHER], strict=True)]
        return self.rate(SERVICE) / self.rate(OTHER), min(pairs), max(pairs)

    def p50_ratio(self) -> float:
        """The service's median latency divided by the other's."""
        return self.ms(SERVICE, 50) / self.ms(OTHER, 50)


@dataclass
class Run:
    """All measurements. raw_rates: images per second of raw inference, by round. health: latencies in seconds."""

    cells: dict[Key, Cell]
    raw: dict[ModelName, RawInference]
    sides: dict[str, Side]
    agreement: dict[ModelName, str]
    ready_s: float
    raw_rates: dict[ModelName, list[float]] = field(default_factory=dict)
    health: list[float] = field(default_factory=list)


def report(result: Run, kinds: Sequence[str]) -> str:
    """The run as Markdown. The first table has only the first kind of image."""
    other = result.sides[OTHER].name
    lines = [
        f"# The service beside a {other} server, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"{processor()}, {os.cpu_count()} cores, CPU only. `python -m benchmarks.compare`, rounds of both in turns.",
        f"Ratios are service by {other}: of the medians of the rounds' rates, in brackets the smallest and the largest",
        "of a pair of rounds. Raw inference is the engine in loops on the first image's input, at its best batch size.",
        f"What took more than {SLOW_S:g} s in the first round was asked in that one only, except for the first table.",
        "",
        f"## In short: {kinds[0]}",
        "",
        f"| route | requests/s at {IN_SHORT}, {other} → service | ratio | p50 at 1, ms | ratio "
        f"| of raw inference at {IN_SHORT} | engine |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, raw in result.raw.items():
        several, one = result.cells[name, kinds[0], IN_SHORT], result.cells[name, kinds[0], 1]
        ratio, low, high = several.rate_ratio()
        most = median(result.raw_rates[name])
        lines.append(
            f"| {CATALOGUE[name].route} | {several.rate(OTHER):.1f} → {several.rate(SERVICE):.1f} "
            f"| **{ratio:.1f}×** ({low:.1f}–{high:.1f}) "
            f"| {one.ms(OTHER, 50):.0f} → {one.ms(SERVICE, 50):.0f} | {one.p50_ratio():.2f} "
            f"| {several.rate(SERVICE) / most:.0%} of {most:.1f}/s at batch {raw.best} "
            f"| {raw.engine.name} {raw.engine.precision} |"
        )
    lines += [
        f"\n{side.name}: peak memory {side.peak / 1e9:.2f} GB, {side.cpu_s / max(1, side.answers):.3f} processor "
        f"seconds per request over all rounds, {sum(cell.failures(each) for cell in result.cells.values())} errors."
        for each, side in result.sides.items()
    ]
    lines.append(
        f"\nThe service took {result.ready_s:.1f} s from its start to ready; its /health while 32 were asking: "
        f"p50 {np.percentile(result.health, 50) * 1000:.0f} ms, p99 {np.percentile(result.health, 99) * 1000:.0f} ms, "
        f"{len(result.health)} asked."
    )
    lines += [
        "",
        "## Everything",
        "",
        f"| route | image | at a time | requests/s {other} | service | ratio | p50, ms, {other} | service "
        f"| p95 {other} | service | p99 {other} | service | errors |",
        "|---" * 13 + "|",
    ]
    lines += [_row(*key, cell) for key, cell in result.cells.items()]
    lines += ["", "## Do they agree?", ""]
    lines += [f"- {CATALOGUE[name].route}: {text}" for name, text in result.agreement.items()]
    return "\n".join(lines) + "\n"


def _row(name: ModelName, kind: str, concurrency: int, cell: Cell) -> str:
    ratio, low, high = cell.rate_ratio()
    percentiles = [f"{cell.ms(side, q):.0f}" for q in (50, 95, 99) for side in SIDES]
    return (
        f"| {CATALOGUE[name].route} | {kind} | {concurrency} | {cell.rate(OTHER):.1f} | {cell.rate(SERVICE):.1f} "
        f"| {ratio:.1f}× ({low:.1f}–{high:.1f}) | {' | '.join(percentiles)} "
        f"| {cell.failures(OTHER)}, {cell.failures(SERVICE)} |"
    )


def processor() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


@dataclass(frozen=True)
class Bars:
    """The bars of a route. rates: requests/s of the other side, the service, raw inference. p50s: ms of both sides."""

    rates: tuple[float, float, float]
    p50s: tuple[float, float]


def bars(result: Run, kind: str) -> dict[str, Bars]:
    """Route → its bars, for one kind of image."""
    found = {}
    for name, rates in result.raw_rates.items():
        several, one = result.cells[name, kind, IN_SHORT], result.cells[name, kind, 1]
        found[CATALOGUE[name].route] = Bars(
            (several.rate(OTHER), several.rate(SERVICE), median(rates)), (one.ms(OTHER, 50), one.ms(SERVICE, 50))
        )
    return found


def draw(routes: Mapping[str, Bars], other: str, title: str) -> Figure:
    """Draw a column for each route: rate above, latency below. Each panel has its own scale, from zero."""
    figure = Figure((max(5, 2.3 * len(routes) + 0.6), 5.4), dpi=110, layout="constrained")
    grid = figure.subplots(2, len(routes), squeeze=False)
    for column, (route, each) in enumerate(routes.items()):
        grid[0, column].set_title(route, fontsize=10)
        _panel(grid[0, column], each.rates, (other, SERVICE, "raw\ninference"))
        _panel(grid[1, column], each.p50s, (other, SERVICE))
    grid[0, 0].set_ylabel(f"requests per second, {IN_SHORT} at a time\n(higher is better)", fontsize=9)
    grid[1, 0].set_ylabel("median latency in ms, one at a time\n(lower is better)", fontsize=9)
    figure.suptitle(title, fontsize=10)
    return figure


def _panel(axes: Axes, heights: Sequence[float], labels: Sequence[str]) -> None:
    drawn = axes.bar(range(len(heights)), heights, 0.8, color=_COLOURS[: len(heights)])
    axes.bar_label(drawn, [f"{height:.3g}" if height < 100 else f"{height:.0f}" for height in heights], fontsize=9)
    axes.set_xticks(range(len(labels)), labels, fontsize=8)
    axes.tick_params(axis="y", labelsize=8)
    axes.margins(y=0.12)
    axes.spines[["top", "right"]].set_visible(False)
