"""The service beside another server, and beside the machine's limit.

The other is what one would write in an afternoon (benchmarks/plain_server.py), or by `--against lean` the best that
somebody would write who knows serving (benchmarks/lean_server.py).

usage: python -m benchmarks.compare PICTURES --out FOLDER [--against lean] [--rounds 3] [--seconds 1.2] [--quick]

PICTURES is a folder with bus.jpg (or names another picture by --picture). Starts both servers, checks that they agree,
and asks them in turns, in short rounds: each route, each kind of image, each concurrency; what the first table shows
twice as long, with the engine alone in bare loops between the two. Writes compare.md and compare.png. Needs the models
in the store (make import).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import cv2
import httpx

from benchmarks import limit
from benchmarks.agreement import Disagreement, difference
from benchmarks.comparison import IN_SHORT, PLAIN, SERVICE, SIDES, Cell, Run, Side, chart, report
from benchmarks.load import Load, Question, put
from benchmarks.serving import free_port, serving
from models.catalogue import CATALOGUE, ModelName
from models.store import borrowed_home
from vision.arrays import RGB
from vision.decoding import OWN_FILES, open_image

CONCURRENCIES: Final = (1, 8, 32)
_START_S: Final = 180.0
_HEALTH_EVERY_S: Final = 0.05


def images(picture: RGB) -> dict[str, bytes]:
    """The three kinds of image: a small frame and a large one as JPEG, and a crop as PNG as the backend sends it."""
    height, width = picture.shape[:2]
    crop = picture[height // 3 : height * 5 // 6, width // 20 : width * 3 // 10]
    return {
        "640×480 JPEG": _encode(cv2.resize(picture, (640, 480), interpolation=cv2.INTER_AREA), ".jpg"),
        "1920×1080 JPEG": _encode(cv2.resize(picture, (1920, 1080), interpolation=cv2.INTER_AREA), ".jpg"),
        f"{crop.shape[1]}×{crop.shape[0]} PNG": _encode(crop, ".png"),
    }


def _encode(image: Any, kind: str) -> bytes:
    return bytes(cv2.imencode(kind, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1])


@contextmanager
def opponent(against: str) -> Iterator[Side]:
    """The plain or the lean server, when it answers."""
    port = free_port()
    command = [sys.executable, "-m", f"benchmarks.{against}_server", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + _START_S
        while not _answers(f"http://127.0.0.1:{port}/health"):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"it did not start: python -m benchmarks.{against}_server 8000 says why")
            time.sleep(0.2)
        yield Side(PLAIN, f"http://127.0.0.1:{port}", process.pid)
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def measure(side: Side, question: Question, concurrency: int, seconds: float) -> Load:
    """One round, with the side's memory watched and its processor time counted."""
    before = side.cpu()
    done = threading.Event()
    watch = threading.Thread(target=_watch_memory, args=(side, done))
    watch.start()
    try:
        load = put(side.url, [question], concurrency, seconds)
    finally:
        done.set()
        watch.join()
    side.cpu_s += side.cpu() - before
    side.answers += len(load.latencies)
    return load


def _watch_memory(side: Side, done: threading.Event) -> None:
    while not done.wait(1.0):
        side.look_at_memory()


@contextmanager
def health_times(url: str) -> Iterator[list[float]]:
    """Seconds that /health took, asked all the time for as long as the block runs."""
    times: list[float] = []
    done = threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=10) as client:
            while not done.wait(_HEALTH_EVERY_S):
                began = time.perf_counter()
                client.get(f"{url}/health")
                times.append(time.perf_counter() - began)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield times
    finally:
        done.set()
        thread.join()


def run(
    pictures: Mapping[str, bytes],
    names: Sequence[ModelName],
    rounds: int,
    seconds: float,
    anyway: bool = False,
    against: str = "plain",
) -> Run:
    """Start both, compare their answers, and ask them in turns. Raises Disagreement unless they are asked anyway."""
    small = open_image(next(iter(pictures.values())), OWN_FILES).decode()
    bare = {name: limit.load(name, small, seconds / 2) for name in names}
    with (
        opponent(against) as plain_side,
        borrowed_home() as own_home,
        serving(BENTOML_HOME=str(own_home)) as service,
    ):
        sides = {PLAIN: plain_side, SERVICE: Side(SERVICE, service.url, service.pid)}
        agreement = {name: _agreement(CATALOGUE[name].route, sides, pictures, anyway) for name in names}
        keys = [
            (name, kind, concurrency)
            for name in names
            for kind in pictures
            for concurrency in CONCURRENCIES
            # Half a minute a round on the plain side: with one image that is enough.
            if (name, concurrency) != ("depth_estimator", max(CONCURRENCIES)) or kind == next(iter(pictures))
        ]
        cells = {key: Cell() for key in keys}
        limits: dict[ModelName, list[float]] = {name: [] for name in names}
        health: list[float] = []
        for number in range(rounds):
            for key in keys:
                name, kind, concurrency = key
                in_table = kind == next(iter(pictures)) and concurrency <= IN_SHORT  # the first one
                in_short = in_table and concurrency == IN_SHORT
                if cells[key].slow and not in_short:
                    continue
                question = Question.of(CATALOGUE[name].route, pictures[kind])
                for turn, side in enumerate(SIDES if number % 2 == 0 else reversed(SIDES)):
                    if in_short and turn == 1:  # between the two that it is compared with: the machine's speed varies
                        limits[name].append(bare[name].per_second(seconds * 2))
                    watched = side == SERVICE and concurrency == max(CONCURRENCIES)
                    watch: AbstractContextManager[list[float]] = (
                        health_times(service.url) if watched else nullcontext([])
                    )
                    with watch as times:
                        load = measure(sides[side], question, concurrency, seconds * 2 if in_table else seconds)
                    health += times
                    cells[key].rounds[side].append(load)
            print(f"round {number + 1} of {rounds} done", file=sys.stderr)
        for each in sides.values():
            each.look_at_memory()
        return Run(cells, limits, bare, sides, health, agreement, service.seconds["/readyz"])


def _agreement(route: str, sides: Mapping[str, Side], pictures: Mapping[str, bytes], anyway: bool) -> str:
    """How far apart the two sides' answers are; also what is slow only the first time on either side."""
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
    parser.add_argument("--seconds", type=float, default=1.2, help="of a round, beside what waits for its last answers")
    parser.add_argument("--only", choices=CATALOGUE, nargs="*", help="models, all where none is named")
    parser.add_argument("--quick", action="store_true", help="one short round with one kind of image: does it run?")
    parser.add_argument("--against", choices=("plain", "lean"), default="plain", help="lean: benchmarks/lean_server.py")
    parser.add_argument("--anyway", action="store_true", help="go on where their answers differ: int8, bf16")
    arguments = parser.parse_args()
    pictures = images(open_image((arguments.pictures / arguments.picture).read_bytes(), OWN_FILES).decode())
    if arguments.quick:
        pictures = dict([next(iter(pictures.items()))])
        arguments.rounds, arguments.seconds = 1, 0.3
    result = run(
        pictures,
        arguments.only or list(CATALOGUE),
        arguments.rounds,
        arguments.seconds,
        arguments.anyway,
        arguments.against,
    )
    text = report(result, pictures, arguments.against)
    arguments.out.mkdir(parents=True, exist_ok=True)
    name = "compare" if arguments.against == "plain" else "compare-lean"
    (arguments.out / f"{name}.md").write_text(text, encoding="utf-8")
    chart(result, next(iter(pictures)), arguments.out / f"{name}.png")
    print(text)


if __name__ == "__main__":
    main()
