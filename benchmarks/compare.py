"""How fast is the service compared with a plain server, a lean server and raw inference?

usage: python -m benchmarks.compare PICTURES --out FOLDER [--against lean] [--rounds 3] [--seconds 1.2] [--quick]

PICTURES is a folder with bus.jpg, or with the picture of --picture. Starts both servers and checks that they agree.
Then measures them alternately, in short rounds, for each route, kind of image and concurrency. Rounds of the first
table are twice as long, with raw inference between the servers. Writes compare.md and compare.png, or compare-lean.
Needs the models in the store (make import).
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import cv2
import httpx

from benchmarks import raw_inference
from benchmarks.agreement import Disagreement, difference
from benchmarks.comparison import IN_SHORT, OTHER, SERVICE, SIDES, Cell, Key, Run, Side, bars, draw, processor, report
from benchmarks.load import Load, Question, put
from benchmarks.serving import serving
from models.catalogue import CATALOGUE, ModelName
from models.store import borrowed_home
from vision.arrays import RGB
from vision.decoding import OWN_FILES, open_image

CONCURRENCIES: Final = (1, IN_SHORT, 32)
_HEALTH_EVERY_S: Final = 0.05


def images(picture: RGB) -> dict[str, bytes]:
    """Kind → file: a small and a large frame as JPEG, and a crop as PNG, as the backend sends it."""
    height, width = picture.shape[:2]
    crop = picture[height // 3 : height * 5 // 6, width // 20 : width * 3 // 10]
    return {
        "640×480 JPEG": _encode(cv2.resize(picture, (640, 480), interpolation=cv2.INTER_AREA), ".jpg"),
        "1920×1080 JPEG": _encode(cv2.resize(picture, (1920, 1080), interpolation=cv2.INTER_AREA), ".jpg"),
        f"{crop.shape[1]}×{crop.shape[0]} PNG": _encode(crop, ".png"),
    }


def _encode(image: Any, kind: str) -> bytes:
    return bytes(cv2.imencode(kind, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1])


def measure(side: Side, question: Question, concurrency: int, seconds: float) -> Load:
    """Measure one round, with the side's memory and processor time."""
    before = side.cpu()
    with _repeated(1.0, side.look_at_memory):
        load = put(side.url, [question], concurrency, seconds)
    side.cpu_s += side.cpu() - before
    side.answers += len(load.latencies)
    return load


@contextmanager
def health_times(url: str, times: list[float]) -> Iterator[None]:
    """Request /health repeatedly while the block runs, and add each latency in seconds to `times`."""
    with httpx.Client(base_url=url, timeout=10) as client:

        def ask() -> None:
            began = time.perf_counter()
            client.get("/health")
            times.append(time.perf_counter() - began)

        with _repeated(_HEALTH_EVERY_S, ask):
            yield


@contextmanager
def _repeated(every_s: float, call: Callable[[], object]) -> Iterator[None]:
    """Call in a thread every `every_s` seconds while the block runs."""
    done = threading.Event()

    def loop() -> None:
        while not done.wait(every_s):
            call()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def run(
    pictures: Mapping[str, bytes], names: Sequence[ModelName], rounds: int, seconds: float, against: str, anyway: bool
) -> Run:
    """Start both servers, compare their answers, and measure them. Raises Disagreement unless `anyway`."""
    first = next(iter(pictures))
    small = open_image(pictures[first], OWN_FILES).decode()
    raw = {name: raw_inference.load(name, small, seconds / 2) for name in names}
    with (
        serving([f"benchmarks.{against}_server"], ["/health"]) as other,
        borrowed_home() as own_home,
        serving(BENTOML_HOME=str(own_home)) as service,
    ):
        sides = {OTHER: Side(against, other.url, other.pid), SERVICE: Side(SERVICE, service.url, service.pid)}
        agreement = {name: _agreement(CATALOGUE[name].route, sides, pictures, anyway) for name in names}
        keys = [
            (name, kind, concurrency)
            for name in names
            for kind in pictures
            for concurrency in CONCURRENCIES
            # The plain side takes a minute. So depth has one image at the highest concurrency, and none with --quick.
            if (name, concurrency) != ("depth_estimator", max(CONCURRENCIES)) or (kind == first and rounds > 1)
        ]
        result = Run({key: Cell() for key in keys}, raw, sides, agreement, service.seconds["/readyz"])
        for number in range(rounds):
            for key, cell in result.cells.items():
                if not cell.slow or key[1:] == (first, IN_SHORT):
                    order = SIDES if number % 2 == 0 else SIDES[::-1]
                    _round(result, key, pictures, order, seconds)
            print(f"round {number + 1} of {rounds} done", file=sys.stderr)
        for side in sides.values():
            side.look_at_memory()
        return result


def _round(result: Run, key: Key, pictures: Mapping[str, bytes], order: Sequence[str], seconds: float) -> None:
    """Measure one round of a cell on both sides, in this order."""
    name, kind, concurrency = key
    in_table = kind == next(iter(pictures)) and concurrency <= IN_SHORT  # the first table
    question = Question.of(CATALOGUE[name].route, pictures[kind])
    for turn, side in enumerate(result.sides[each] for each in order):
        if in_table and concurrency == IN_SHORT and turn == 1:  # between the sides, because the machine's speed varies
            result.raw_rates.setdefault(name, []).append(result.raw[name].per_second(seconds * 2))
        watched = side.name == SERVICE and concurrency == max(CONCURRENCIES)
        watch: AbstractContextManager[None] = health_times(side.url, result.health) if watched else nullcontext()
        with watch:
            load = measure(side, question, concurrency, seconds * 2 if in_table else seconds)
        result.cells[key].rounds[order[turn]].append(load)


def _agreement(route: str, sides: Mapping[str, Side], pictures: Mapping[str, bytes], anyway: bool) -> str:
    """Describe the differences of the sides' answers. The requests also warm up both sides."""
    found: list[str] = []
    for kind, picture in pictures.items():
        question = Question.of(route, picture)
        answers: list[Any] = []
        for side in sides.values():
            headers = {"Content-Type": "application/json"}
            for _ in range(2):
                answer = httpx.post(f"{side.url}{route}", content=question.body, headers=headers, timeout=120)
            answers.append(answer.raise_for_status().json())
        try:
            found.append(f"{kind}: {difference(route, *answers)}")
        except Disagreement as error:
            if not anyway:
                raise
            found.append(f"{kind}: **they differ**, {error}")
    return "; ".join(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--picture", default="bus.jpg")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.2, help="of a round, without the wait for its last answers")
    parser.add_argument("--only", choices=CATALOGUE, nargs="*", help="models; default: all")
    parser.add_argument("--quick", action="store_true", help="one short round with one kind of image, as a test")
    parser.add_argument("--against", choices=("plain", "lean"), default="plain", help="lean: benchmarks/lean_server.py")
    parser.add_argument("--anyway", action="store_true", help="continue if their answers differ, for int8 and bf16")
    arguments = parser.parse_args()
    pictures = images(open_image((arguments.pictures / arguments.picture).read_bytes(), OWN_FILES).decode())
    if arguments.quick:
        pictures = dict([next(iter(pictures.items()))])
        arguments.rounds, arguments.seconds = 1, 0.3
    names = arguments.only or list(CATALOGUE)
    result = run(pictures, names, arguments.rounds, arguments.seconds, arguments.against, arguments.anyway)
    text = report(result, list(pictures))
    arguments.out.mkdir(parents=True, exist_ok=True)
    name = "compare" if arguments.against == "plain" else "compare-lean"
    (arguments.out / f"{name}.md").write_text(text, encoding="utf-8")
    kind = next(iter(pictures))
    title = f"{processor()}, {os.cpu_count()} cores, {kind}, {datetime.now(UTC):%Y-%m-%d}"
    draw(bars(result, kind), arguments.against, title).savefig(arguments.out / f"{name}.png")
    print(text)


if __name__ == "__main__":
    main()
