"""Compares one call to /enrich with the single calls that give the same answers.

usage: python -m benchmarks.enrich PICTURE [--rounds 5]

Finds up to four people in the picture, and asks all five models about each of their boxes: by /enrich, by single calls
one after the other, and by the single calls all at once. The three take turns. Prints Markdown with the medians.
Needs the models in the store (make import).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks.serving import serving
from models.catalogue import CATALOGUE
from models.store import borrowed_home
from vision.decoding import OWN_FILES, open_image

_MOST: Final = 4  # boxes
_DECODINGS: Final = 20  # to measure one

Answers = dict[str, Any]


def post(client: httpx.Client, route: str, image: bytes, **fields: Any) -> Answers:
    response = client.post(route, files={"image": image}, data=fields)
    response.raise_for_status()
    answer: Answers = response.json()
    return answer


def timed(ask: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    ask()
    return time.perf_counter() - began


def decoding_s(image: bytes) -> float:
    """Seconds of one decoding, the median of some."""
    return statistics.median(timed(lambda: open_image(image, OWN_FILES).decode()) for _ in range(_DECODINGS))


def compare(client: httpx.Client, image: bytes, boxes: Sequence[str], rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of /enrich, of the single calls in a row and all at once, and of enrich's decodings; one per round."""
    singles = [(spec.route, box) for box in boxes for spec in CATALOGUE.values()]
    asked = f"[{','.join(f'[{box}]' for box in boxes)}]"
    decoded: list[float] = []

    def together() -> None:
        answer = post(client, "/enrich", image, boxes=asked)
        decoded.append(answer["timings"]["decode_ms"] / 1000)

    def in_a_row() -> None:
        for route, box in singles:
            post(client, route, image, bbox=box)

    def at_once() -> None:
        with ThreadPoolExecutor(len(singles)) as threads:
            list(threads.map(lambda each: post(client, each[0], image, bbox=each[1]), singles))

    ways = (together, in_a_row, at_once)
    turns = [[timed(way) for way in ways] for _ in range(rounds + 1)][1:]  # the first round warms up
    return [statistics.median(turn) for turn in zip(*turns, strict=True)], decoded[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    image = arguments.picture.read_bytes()
    with (
        borrowed_home() as home,
        serving(BENTOML_HOME=str(home)) as server,
        httpx.Client(base_url=server.url, timeout=120, limits=httpx.Limits(max_connections=None)) as client,
    ):
        people = [person["bbox"] for person in post(client, "/pose-analyze", image)["persons"][:_MOST]]
        corners = [(box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]) for box in people]
        boxes = [",".join(f"{side:.0f}" for side in box) for box in corners]
        (together, in_a_row, at_once), decoded = compare(client, image, boxes, arguments.rounds)
    calls = len(boxes) * len(CATALOGUE)
    decodings = calls * decoding_s(image)
    print(f"{len(boxes)} boxes × {len(CATALOGUE)} models, median of {arguments.rounds} rounds\n")
    print("| | s | /enrich to it |\n|---|---|---|")
    print(f"| /enrich | {together:.2f} | |")
    print(f"| {calls} single calls, one after the other | {in_a_row:.2f} | {together / in_a_row:.2f} |")
    print(f"| {calls} single calls, all at once | {at_once:.2f} | {together / at_once:.2f} |")
    print(f"| decoding, {calls} times | {decodings:.3f} | {statistics.median(decoded) / decodings:.2f} |")


if __name__ == "__main__":
    main()
