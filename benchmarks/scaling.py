"""What more processes give on this machine: one runner for all models, one per model, two replicas.

usage: python -m benchmarks.scaling PICTURE [--seconds 10] [--rounds 3]

All five routes in turns, 16 requests at a time, the setups one after the other in each round; prints medians as
Markdown. Needs the models in the store (make import).
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from threading import Thread
from typing import Final

import psutil

from benchmarks.load import Load, Question, put
from benchmarks.serving import Serving, serving
from models.catalogue import CATALOGUE
from models.store import borrowed_home

CONCURRENCY: Final = 16
SETUPS: Final[Mapping[str, tuple[Mapping[str, str], ...]]] = {
    "one replica, `placement: shared`": ({},),
    "one replica, `placement: isolated`": ({"ENRICHMENT_PLACEMENT": "isolated"},),
    "two replicas, `shared`": ({}, {}),
    "two replicas, a thread each": ({"ENRICHMENT_CPU_THREADS": "1"}, {"ENRICHMENT_CPU_THREADS": "1"}),
}


@contextmanager
def started(environments: tuple[Mapping[str, str], ...]) -> Iterator[list[Serving]]:
    """Servers, each with a BENTOML_HOME of its own (their metrics' files) that shares the models."""
    with ExitStack() as stack:
        servers = []
        for environment in environments:
            own_home = stack.enter_context(borrowed_home())
            servers.append(stack.enter_context(serving(BENTOML_HOME=str(own_home), **environment)))
        yield servers


def resident() -> float:
    """GB of all processes that this one started, shared pages counted by shares."""
    children = psutil.Process().children(recursive=True)
    return sum(child.memory_full_info().pss for child in children) / 1e9


def measure(servers: list[Serving], questions: list[Question], seconds: float) -> list[Load]:
    """The callers shared out evenly over the servers, as a load balancer does it."""
    loads: list[Load] = []

    def ask(server: Serving) -> None:
        loads.append(put(server.url, questions, CONCURRENCY // len(servers), seconds))

    threads = [Thread(target=ask, args=(server,)) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return loads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    questions = [Question.of(spec.route, arguments.picture.read_bytes()) for spec in CATALOGUE.values()]
    found: dict[str, list[tuple[float, float, float, float, int]]] = {setup: [] for setup in SETUPS}
    for _ in range(arguments.rounds):
        for setup, environments in SETUPS.items():
            with started(environments) as servers:
                measure(servers, questions, 2)  # what is slow once
                loads = measure(servers, questions, arguments.seconds)
                whole = Load(
                    max(load.seconds for load in loads),
                    [latency for load in loads for latency in load.latencies],
                    sum((load.failures for load in loads), Counter[str]()),
                )
                found[setup].append(
                    (
                        whole.per_second,
                        whole.percentile(50),
                        whole.percentile(99),
                        resident(),
                        whole.failures.total(),
                    )
                )
    print(f"{os.cpu_count()} cores, {CONCURRENCY} requests at a time, all routes in turns\n")
    print("| setup | requests/s | p50, ms | p99, ms | memory, GB | failed |\n|---|---|---|---|---|---|")
    for setup, rows in found.items():
        rate, p50, p99, memory, failed = (median(values) for values in zip(*rows, strict=True))
        print(f"| {setup} | {rate:.1f} | {p50 * 1000:.0f} | {p99 * 1000:.0f} | {memory:.2f} | {failed:.0f} |")


if __name__ == "__main__":
    main()
