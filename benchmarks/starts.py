"""How long does a start take, and the first request of a model that loads on demand?

usage: python -m benchmarks.starts PICTURE [--rounds 3]

Starts the service alternately with two, five and no models preloaded, and prints medians as Markdown. Needs the models
in the store (make import).
"""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path
from statistics import median
from typing import Final

import httpx

from benchmarks.serving import Serving, serving
from models.catalogue import CATALOGUE, ModelName

PRELOADS: Final = {"two": ("pose_estimator", "threat_detector"), "five": tuple(CATALOGUE), "none": ()}
_LOADED: Final = re.compile(r"(\w+) is ready on (\S+) \((\S+)\) after (\S+) s, (\d+) MB")

Times = dict[str, list[float]]


def loading(server: Serving) -> dict[str, float]:
    """Model → seconds for loading and warm-up, from the server's log."""
    return {name: float(seconds) for name, _, _, seconds, _ in _LOADED.findall(server.log)}


def first_requests(server: Serving, picture: bytes) -> dict[ModelName, tuple[float, float]]:
    """Model → seconds of its first and of its second request."""
    with httpx.Client(base_url=server.url, timeout=120) as client:

        def ask(route: str) -> float:
            began = time.perf_counter()
            client.post(route, files={"image": picture}).raise_for_status()
            return time.perf_counter() - began

        return {name: (ask(spec.route), ask(spec.route)) for name, spec in CATALOGUE.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    picture = arguments.picture.read_bytes()
    starts: dict[str, Times] = {preload: {} for preload in PRELOADS}
    requests: dict[ModelName, list[tuple[float, float]]] = {name: [] for name in CATALOGUE}
    for _ in range(arguments.rounds):
        for preload, names in PRELOADS.items():
            with serving(ENRICHMENT_LIGHT_PRELOAD_MODELS=",".join(names)) as server:
                if not names:
                    for name, seconds in first_requests(server, picture).items():
                        requests[name].append(seconds)
                for key, value in (server.seconds | loading(server)).items():
                    starts[preload].setdefault(key, []).append(value)
    print("| preloaded | /livez | /health | /readyz | of it loading and warming, one after the other |")
    print("|---|---|---|---|---|")
    for preload, names in PRELOADS.items():
        times = {key: median(values) for key, values in starts[preload].items()}
        loads = ", ".join(f"{name} {times[name]:.1f}" for name in names) or "–"
        print(f"| {preload} | {times['/livez']:.1f} | {times['/health']:.1f} | {times['/readyz']:.1f} | {loads} |")
    print("\n| model | first request on demand | second | of the first, loading and warming |\n|---|---|---|---|")
    for name in CATALOGUE:
        first, second = (median(values) for values in zip(*requests[name], strict=True))
        print(f"| {name} | {first:.2f} | {second:.3f} | {median(starts['none'][name]):.1f} |")


if __name__ == "__main__":
    main()
