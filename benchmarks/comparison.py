"""What benchmarks.compare found, as Markdown and as a chart."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
import psutil
from matplotlib.figure import Figure

from benchmarks.limit import Limit
from benchmarks.load import Load
from models.catalogue import CATALOGUE, ModelName

SERVICE: Final = "service"
PLAIN: Final = "plain"
SIDES: Final = (PLAIN, SERVICE)
IN_SHORT: Final = 8  # requests at a time of the first table and the chart
SLOW_S: Final = 15.0  # what takes longer in the first round is not repeated, but for these


@dataclass
class Side:
    """A running server. cpu_s, answers: of the measured rounds alone; peak: the most memory of its processes, bytes."""

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
        """Note the memory, pages that several processes share counted once."""
        self.peak = max(self.peak, sum(process.memory_full_info().pss for process in self.processes()))


@dataclass
class Cell:
    """One route, image and concurrency: each side's rounds."""

    rounds: dict[str, list[Load]] = field(default_factory=lambda: {side: [] for side in SIDES})

    @property
    def slow(self) -> bool:
        """Whether the first round took longer than SLOW_S, both sides together."""
        return sum(load.seconds for loads in self.rounds.values() for load in loads[:1]) > SLOW_S

    def rate(self, side: str) -> float:
        """Answers per second, median of the rounds."""
        return median(load.per_second for load in self.rounds[side])

    def percentile(self, side: str, percent: float) -> float:
        """Seconds, over all answers of all rounds."""
        return float(np.percentile([each for load in self.rounds[side] for each in load.latencies], percent))

    def ms(self, side: str, percent: float) -> str:
        """The same in milliseconds, to read."""
        return f"{self.percentile(side, percent) * 1000:.0f}"

    def failures(self, side: str) -> int:
        """What was answered with anything but 200."""
        return sum(load.failures.total() for load in self.rounds[side])

    def rate_ratio(self) -> tuple[float, float, float]:
        """The service's rate by the plain server's: of the medians, and the smallest and largest of a round's pair."""
        pairs = [a.per_second / b.per_second for a, b in zip(self.rounds[SERVICE], self.rounds[PLAIN], strict=True)]
        return self.rate(SERVICE) / self.rate(PLAIN), min(pairs), max(pairs)

    def p50_ratio(self) -> float:
        """The service's median latency by the plain server's."""
        return self.percentile(SERVICE, 50) / self.percentile(PLAIN, 50)


@dataclass
class Run:
    """Everything that was measured. limits: images per second of each model's bare engine, a round each."""

    cells: dict[tuple[ModelName, str, int], Cell]
    limits: dict[ModelName, list[float]]
    engines: dict[ModelName, Limit]
    sides: dict[str, Side]
    health: list[float]
    agreement: dict[ModelName, str]
    ready_s: float

    def of_limit(self, name: ModelName, kind: str, concurrency: int = IN_SHORT) -> float:
        """The service's rate as a share of the bare engine's."""
        return self.cells[name, kind, concurrency].rate(SERVICE) / median(self.limits[name])


def report(result: Run, pictures: Mapping[str, bytes], against: str = PLAIN) -> str:
    """The run as Markdown."""
    kinds = list(pictures)
    lines = [
        f"# The service beside a {against} server, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"{_processor()}, {os.cpu_count()} cores, CPU only. `python -m benchmarks.compare`, rounds of both in turns.",
        "Ratios are service by plain: of the medians of the rounds' rates, in brackets the smallest and the largest of",
        "a pair of rounds. The limit is the engine in bare loops on the first image's input, at its best batch size.",
        f"What took more than {SLOW_S:g} s in the first round was asked in that one only, except for the first table.",
        "",
        f"## In short: {kinds[0]}",
        "",
        f"| route | requests/s at {IN_SHORT}, plain → service | ratio | p50 at 1, ms | ratio "
        f"| of the limit at {IN_SHORT} | engine |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, bare in result.engines.items():
        several, one = result.cells[name, kinds[0], IN_SHORT], result.cells[name, kinds[0], 1]
        ratio, low, high = several.rate_ratio()
        lines.append(
            f"| {CATALOGUE[name].route} | {several.rate(PLAIN):.1f} → {several.rate(SERVICE):.1f} "
            f"| **{ratio:.1f}×** ({low:.1f}–{high:.1f}) "
            f"| {one.ms(PLAIN, 50)} → {one.ms(SERVICE, 50)} | {one.p50_ratio():.2f} "
            f"| {result.of_limit(name, kinds[0]):.0%} of {median(result.limits[name]):.1f}/s at batch {bare.best} "
            f"| {bare.engine.name} {bare.engine.precision} |"
        )
    lines += [
        f"\n{side.name}: peak memory {side.peak / 1e9:.2f} GB, {side.cpu_s / max(1, side.answers):.3f} processor "
        f"seconds per request over all rounds, {sum(c.failures(side.name) for c in result.cells.values())} errors."
        for side in result.sides.values()
    ]
    lines.append(
        f"\nThe service took {result.ready_s:.1f} s from its start to ready; its /health while 32 were asking: "
        f"p50 {np.percentile(result.health, 50) * 1000:.0f} ms, p99 {np.percentile(result.health, 99) * 1000:.0f} ms, "
        f"{len(result.health)} asked."
    )
    lines += ["", "## Everything", "", _HEADER, "|---" * (_HEADER.count("|") - 1) + "|"]
    lines += [_row(*key, cell) for key, cell in result.cells.items()]
    lines += ["", "## Do they agree?", ""]
    lines += [f"- {CATALOGUE[name].route}: {text}" for name, text in result.agreement.items()]
    return "\n".join(lines) + "\n"


_HEADER: Final = (
    "| route | image | at a time | requests/s plain | service | ratio | p50, ms, plain | service | p95 plain | service "
    "| p99 plain | service | errors |"
)


def _row(name: ModelName, kind: str, concurrency: int, cell: Cell) -> str:
    ratio, low, high = cell.rate_ratio()
    percentiles = [cell.ms(side, q) for q in (50, 95, 99) for side in SIDES]
    return (
        f"| {CATALOGUE[name].route} | {kind} | {concurrency} | {cell.rate(PLAIN):.1f} | {cell.rate(SERVICE):.1f} "
        f"| {ratio:.1f}× ({low:.1f}–{high:.1f}) | {' | '.join(percentiles)} "
        f"| {cell.failures(PLAIN)}, {cell.failures(SERVICE)} |"
    )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def chart(result: Run, kind: str, file: Path) -> None:
    """Both sides' rate at 8 and latency at 1, and the limit, as bars."""
    names = list(result.engines)
    figure = Figure((11, 4.2), dpi=110)
    places = np.arange(len(names))
    labels = [CATALOGUE[name].route for name in names]
    panels: list[tuple[str, int, Callable[[Cell, str], float]]] = [
        (f"requests/s, {IN_SHORT} at a time, {kind}", IN_SHORT, lambda cell, side: cell.rate(side)),
        (f"p50 in ms, one at a time, {kind}", 1, lambda cell, side: cell.percentile(side, 50) * 1000),
    ]
    for number, (title, concurrency, value) in enumerate(panels):
        axes = figure.add_subplot(1, 2, number + 1)
        for offset, (side, colour) in enumerate(zip(SIDES, ("#9aa5b1", "#1f78c1"), strict=True)):
            heights = [value(result.cells[name, kind, concurrency], side) for name in names]
            bars = axes.bar(places + 0.38 * (offset - 0.5), heights, 0.36, color=colour, label=side)
            axes.bar_label(bars, fmt="%.3g", fontsize=8)
        if concurrency == IN_SHORT:
            axes.plot(places + 0.19, [median(result.limits[name]) for name in names], "k_", ms=16, label="limit")
        axes.set_xticks(places, labels, rotation=20, fontsize=8)
        axes.set_yscale("log")
        axes.set_title(title, fontsize=10)
        axes.legend(fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{_processor()}, {os.cpu_count()} cores, {datetime.now(UTC):%Y-%m-%d}", fontsize=9)
    figure.tight_layout()
    figure.savefig(file)
