"""Where does a request's time go? The steps of each route, from the service's traces.

usage: python -m benchmarks.steps PICTURE [--concurrency 1] [--seconds 3] [--set VARIABLE=VALUE ...]

Starts the service with tracing, and measures one route after another. Prints as Markdown the mean of each step in ms,
and the share of a core that each process used. Needs the models in the store (make import).
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import mean
from typing import Final

import httpx
import psutil
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from benchmarks.collector import Collector, collecting
from benchmarks.load import Question, put
from benchmarks.serving import Serving, serving
from models.catalogue import CATALOGUE
from models.store import borrowed_home

# `back` lasts from the runner's result until the API continues. `rest` is time without a span, such as HTTP and waiting
# for threads. `queue` includes the transfer to the runner.
STEPS: Final = (
    "wait",
    "read",
    "decode",
    "prepare",
    "queue",
    "load",
    "forward",
    "interpret",
    "back",
    "post",
    "encode",
    "rest",
)
_EXPORT_MS: Final = "200"
_SETTLE_S: Final = 0.5  # longer than the export interval


def milliseconds(spans: Iterable[Span]) -> dict[str, float] | None:
    """Step → duration in ms in one trace; `whole` is the request. None if the trace is incomplete."""
    found = {span.name: span for span in spans}
    request = next((span for span in found.values() if span.kind == Span.SPAN_KIND_SERVER), None)
    if request is None or not {"interpret", "post", "encode"} <= found.keys():
        return None
    took = {
        name: (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6
        for name, span in found.items()
        if name in STEPS
    }
    took["back"] = (found["post"].start_time_unix_nano - found["interpret"].end_time_unix_nano) / 1e6
    took["whole"] = (request.end_time_unix_nano - request.start_time_unix_nano) / 1e6
    took["rest"] = took["whole"] - sum(value for name, value in took.items() if name != "whole")
    return took


def processes(server: Serving) -> list[psutil.Process]:
    """The API's process, then the runner's if the placement has one."""
    (runner,) = httpx.get(f"{server.url}/health").json()["runners"]
    workers = [each for each in psutil.Process(server.pid).children(recursive=True) if "worker" in str(each.cmdline())]
    return sorted(workers, key=lambda each: each.pid == runner["pid"])


def row(server: Serving, collector: Collector, question: Question, concurrency: int, seconds: float) -> str:
    """Measure one route. Returns its line of the table."""
    put(server.url, [question], concurrency, 1)  # warm-up
    time.sleep(_SETTLE_S)
    collector.traces.clear()
    asked = processes(server)
    before = [sum(process.cpu_times()[:2]) for process in asked]
    load = put(server.url, [question], concurrency, seconds)
    took = [sum(process.cpu_times()[:2]) - was for process, was in zip(asked, before, strict=True)]
    time.sleep(_SETTLE_S)
    steps: defaultdict[str, list[float]] = defaultdict(list)
    for trace in list(collector.traces.values()):
        for name, value in (milliseconds(trace) or {}).items():
            steps[name].append(value)
    means = " | ".join(f"{mean(steps[name]):.1f}" for name in ("whole", *STEPS))
    cores = ", ".join(f"{each / load.seconds:.2f}" for each in took)
    return f"| {question.route} | {load.per_second:.1f} | {means} | {cores} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--set", nargs="*", default=[], metavar="VARIABLE=VALUE", help="the service's environment")
    arguments = parser.parse_args()
    chosen: Mapping[str, str] = dict(each.split("=", 1) for each in arguments.set)
    print(f"{arguments.picture.name}, {arguments.concurrency} at a time, {os.cpu_count()} cores, mean ms\n")
    print(f"| route | requests/s | whole | {' | '.join(STEPS)} | cores of each process |")
    print("|---" * (len(STEPS) + 4) + "|")
    with collecting() as collector, borrowed_home() as own_home:
        tracing = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": _EXPORT_MS}
        with serving(BENTOML_HOME=str(own_home), **tracing, **chosen) as server:
            for spec in CATALOGUE.values():
                question = Question.of(spec.route, arguments.picture.read_bytes())
                print(row(server, collector, question, arguments.concurrency, arguments.seconds), flush=True)


if __name__ == "__main__":
    main()
