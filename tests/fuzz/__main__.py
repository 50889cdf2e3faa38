"""`make fuzz`: cases until the minutes are over. A finding ends it, and a picture's is kept in
tests/fuzz/corpus. Its text is to become a seed there, too: a file *.json is a body that all parsers read.

usage: python -m tests.fuzz [--minutes 5] [--first 0]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Final

from tests.fuzz import over_http, run
from tests.fuzz.findings import Finding
from tests.serving.server import Server, serving

_CASES: Final = 200  # of each fuzzer in a round


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--first", type=int, default=0, help="number of the first round; each round has its own cases")
    arguments = parser.parse_args()
    end = time.monotonic() + 60 * arguments.minutes
    counts: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), {}) as server:
        try:
            for round_ in itertools.count(arguments.first):
                _round(round_, server, counts)
                if time.monotonic() > end:
                    break
        finally:
            for fuzzer, outcomes in counts.items():
                _say(f"{fuzzer}: {outcomes.total()} cases, {dict(outcomes.most_common())}")


def _round(number: int, server: Server, counts: dict[str, Counter[str]]) -> None:
    cases = range(_CASES * number, _CASES * (number + 1))
    try:
        _add(counts, "pictures", run.run_pictures(cases, run.CORPUS))
        _add(counts, "bodies", run.run_bodies(number, _CASES))
        _add(counts, "postures", run.run_postures(number, _CASES))
        before = server.memory()
        outcome = asyncio.run(over_http.run(server.url, cases))
    except Finding as finding:
        _say(f"round {number}: {finding}")
        raise
    _add(counts, "over HTTP", Counter({str(status): count for status, count in outcome.statuses.items()}))
    slowest, health = max(outcome.refused_s), sorted(outcome.health_s)
    _say(
        f"round {number}: slowest refusal {slowest * 1000:.0f} ms, /health {median(health) * 1000:.0f} ms (median),"
        f" {health[-1] * 1000:.0f} ms (most), memory {(server.memory() - before) / 1e6:+.0f} MB"
    )


def _add(counts: dict[str, Counter[str]], fuzzer: str, outcomes: Counter[str]) -> None:
    counts[fuzzer] = counts.get(fuzzer, Counter()) + outcomes


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
