"""`make fuzz`: cases until the minutes are over. A finding ends it, and a picture's is kept in
tests/fuzz/corpus. Its text is to become a seed there, too: a file *.json is a body that all parsers read.

The first round, and each 20th after it, ends with schemathesis: requests made from the OpenAPI document.

usage: python -m tests.fuzz [--minutes 5] [--first 0]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from statistics import median
from typing import Final

from tests.clients import schemathesis_run
from tests.fuzz import over_http, run
from tests.fuzz.findings import Finding
from tests.serving.server import Server, serving

_CASES: Final = 200  # of each fuzzer in a round
_ROUNDS_PER_DOCUMENT: Final = 20  # schemathesis takes as long as several rounds
_WARM_UP: Final = 20  # rounds in which libraries fill what they keep
# Bytes that all later rounds together may add: 20 MB, and the 64 MiB that api/heap.py lets the C library keep.
_MOST_GROWTH: Final = 20e6 + 64 * 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--first", type=int, default=0, help="number of the first round; each round has its own cases")
    arguments = parser.parse_args()
    end = time.monotonic() + 60 * arguments.minutes
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), {}) as server:
        rounds = _Rounds(server, Path(folder))
        try:
            for number in itertools.count(arguments.first):
                rounds.run(number)
                if time.monotonic() > end:
                    break
        except AssertionError as found:
            _say(f"round {number}: {found}")
            raise
        finally:
            for fuzzer, outcomes in rounds.counts.items():
                _say(f"{fuzzer}: {outcomes.total()} cases, {dict(outcomes.most_common())}")


class _Rounds:
    """The rounds against one server. counts: by the fuzzer's name, what came of its cases."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._server = server
        self._folder = folder
        self._done = 0
        self._warm = 0  # the server's memory in bytes after the warm-up

    def run(self, number: int) -> None:
        """Run all fuzzers with the round's cases. Raises AssertionError for the first finding."""
        cases = range(_CASES * number, _CASES * (number + 1))
        self.counts["pictures"] += run.run_pictures(cases, run.CORPUS)
        self.counts["bodies"] += run.run_bodies(number, _CASES)
        self.counts["postures"] += run.run_postures(number, _CASES)
        outcome = asyncio.run(over_http.run(self._server.url, cases))
        self.counts["over HTTP"] += Counter({str(status): count for status, count in outcome.statuses.items()})
        if self._done % _ROUNDS_PER_DOCUMENT == 0:
            self.counts["schemathesis"]["passed"] += schemathesis_run.run(self._server.url, self._folder, number)
        self._done += 1
        slowest, health = max(outcome.refused_s), sorted(outcome.health_s)
        _say(
            f"round {number}: slowest refusal {slowest * 1000:.0f} ms, /health {median(health) * 1000:.0f} ms (median),"
            f" {health[-1] * 1000:.0f} ms (most), memory {self._memory()}"
        )

    def _memory(self) -> str:
        """Return the server's memory in words. Raises Finding if it does not come back after a round."""
        time.sleep(1)  # for the last answers to be freed
        now = self._server.memory()
        if self._done <= _WARM_UP:
            self._warm = now
            return f"{now / 1e6:.0f} MB"
        growth = now - self._warm
        if growth > _MOST_GROWTH:
            raise Finding(f"the server took {growth / 1e6:.0f} MB in {self._done - _WARM_UP} rounds after its warm-up")
        return f"{now / 1e6:.0f} MB, {growth / 1e6:+.0f} MB since the warm-up"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
