"""The command `enrich`: what the service sees in pictures and folders, or the state of the service itself."""

from __future__ import annotations

import argparse
import asyncio
import collections
import io
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from enrichment_client import report
from enrichment_client.answers import Enrichment
from enrichment_client.client import DEFAULT_URL, AsyncClient
from enrichment_client.errors import EnrichmentError
from enrichment_client.progress import Progress

_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
_OVERLAY: Final = ".overlay.jpg"
_FAILED: Final = 1
_STOPPED: Final = 130  # what a shell reports for Ctrl-C

T = TypeVar("T")
U = TypeVar("U")


class _WrongUse(Exception):
    """The command can't be run as it was written."""


@dataclass(frozen=True)
class _Picture:
    """A file, and its place below the folder of overlays."""

    path: Path
    place: Path


@dataclass(frozen=True)
class _Outcome:
    picture: _Picture
    answer: Enrichment | None = None
    error: EnrichmentError | None = None

    @property
    def failed(self) -> bool:
        """Whether anything that was asked has no answer."""
        if self.error or self.answer is None:
            return True
        return bool(self.answer.errors) or any(box.errors for box in self.answer.boxes)

    def json(self) -> dict[str, Any]:
        told: dict[str, Any] = {"file": str(self.picture.path)}
        if self.answer:
            told |= self.answer.model_dump(mode="json", exclude_unset=True)
        return told | ({"error": _json(self.error)} if self.error else {})

    def words(self) -> str:
        told = report.of_picture(str(self.picture.path), self.answer) if self.answer else str(self.picture.path)
        return told + (f"\n  failed: {self.error}" if self.error else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns 0 if all was answered, 1 if something failed; argparse exits with 2."""
    parser = _parser()
    options = parser.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name may have any bytes
    try:
        return asyncio.run(_service(options) if any(map(_is_url, options.targets)) else _pictures(options))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return _STOPPED
    except BrokenPipeError:  # `enrich … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED
    except _WrongUse as error:
        parser.error(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "enrich",
        description="What ai-enrichment-light sees in pictures.",
        epilog="exit codes: 0 all answered, 1 something failed, 2 wrong use",
    )
    parser.add_argument(
        "targets", nargs="+", metavar="PHOTO|FOLDER|URL", help="pictures and folders; a URL prints the service's state"
    )
    url = os.environ.get("ENRICHMENT_LIGHT_URL") or DEFAULT_URL
    parser.add_argument("--url", default=url, help="of the service, by default ENRICHMENT_LIGHT_URL or %(default)s")
    parser.add_argument("--api-key", default=os.environ.get("ENRICHMENT_API_KEY"), help="or ENRICHMENT_API_KEY")
    parser.add_argument("--models", help="pose,threat,reid,pet,depth; by default all that can serve")
    parser.add_argument("--bbox", help="x1,y1,x2,y2 in pixels: look at a part of each picture")
    parser.add_argument("--overlay", type=Path, metavar="DIR", help="write the annotated pictures into this folder")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--jobs", type=int, default=2, help="pictures at a time, by default %(default)s")
    return parser


def _is_url(target: str) -> bool:
    return target.startswith(("http://", "https://"))


async def _service(options: argparse.Namespace) -> int:
    if len(options.targets) > 1:
        raise _WrongUse("a URL stands alone; for pictures give the service by --url")
    (url,) = options.targets
    async with _client(url, options.api_key) as client:
        try:
            health = await client.health()
        except EnrichmentError as error:
            print(json.dumps({"url": url, "error": _json(error)}) if options.json else error)
            return _FAILED
    print(health.model_dump_json(exclude_unset=True) if options.json else report.of_service(url, health))
    return _FAILED if health.status == "unhealthy" else 0


def _client(url: str, api_key: str | None) -> AsyncClient:
    if api_key and not api_key.isascii():
        raise _WrongUse("--api-key holds characters that no header can carry")
    try:
        return AsyncClient(url, api_key=api_key)
    except ValueError as error:
        raise _WrongUse(str(error)) from None


async def _pictures(options: argparse.Namespace) -> int:
    pictures = _found(options.targets)
    asked = {"models": _models(options.models), "bbox": _corners(options.bbox)}
    if options.jobs < 1:
        raise _WrongUse(f"--jobs is {options.jobs}; at least 1 is needed")
    if options.overlay and len({picture.place for picture in pictures}) < len(pictures):
        raise _WrongUse("--overlay: two pictures have the same place below their folders; give the folders one by one")
    progress = Progress(len(pictures))
    failed = False
    async with _client(options.url, options.api_key) as client:

        async def ask(picture: _Picture) -> _Outcome:
            return await _ask(client, picture, options.overlay, asked)

        progress.draw()
        try:
            async for outcome in _in_order(ask, pictures, options.jobs):
                progress.clear()
                print(json.dumps(outcome.json(), ensure_ascii=False) if options.json else outcome.words(), flush=True)
                progress.step(failed=outcome.failed)
                failed = failed or outcome.failed
        finally:
            progress.clear()
    return _FAILED if failed else 0


async def _ask(client: AsyncClient, picture: _Picture, overlay: Path | None, asked: dict[str, Any]) -> _Outcome:
    answer = None
    try:
        answer = await client.enrich(picture.path, **asked)
        if overlay:
            data = await client.overlay(picture.path, **asked)
            await asyncio.to_thread(_write, overlay / picture.place, data)
    except EnrichmentError as error:
        return _Outcome(picture, answer, error)
    except OSError as error:
        return _Outcome(picture, answer, EnrichmentError(None, "file", str(error)))
    return _Outcome(picture, answer)


async def _in_order(work: Callable[[T], Awaitable[U]], items: Iterable[T], jobs: int) -> AsyncIterator[U]:
    """Yield the results in the items' order, with `jobs` of them under way."""
    waiting: collections.deque[asyncio.Future[U]] = collections.deque()
    for item in items:
        if len(waiting) == jobs:
            yield await waiting.popleft()
        waiting.append(asyncio.ensure_future(work(item)))
    while waiting:
        yield await waiting.popleft()


def _found(targets: Sequence[str]) -> list[_Picture]:
    try:
        return _found_in(targets)
    except OSError as error:  # a folder that may not be entered
        raise _WrongUse(str(error)) from None


def _found_in(targets: Sequence[str]) -> list[_Picture]:
    pictures = []
    for target in map(Path, targets):
        if target.is_dir():
            inside = sorted(path for path in target.rglob("*") if _is_picture(path))
            if not inside:
                raise _WrongUse(f"no pictures in {target}")
            pictures += [_Picture(path, _place(target.resolve().name / path.relative_to(target))) for path in inside]
        elif target.is_file():
            pictures.append(_Picture(target, _place(Path(target.name))))
        else:
            raise _WrongUse(f"{target} is no file, folder or URL")
    return pictures


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and not path.name.endswith(_OVERLAY) and path.is_file()


def _place(path: Path) -> Path:
    return path.with_name(path.name + _OVERLAY)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _models(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _corners(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        x1, y1, x2, y2 = (float(number) for number in text.split(","))
    except ValueError:
        raise _WrongUse(f"--bbox is {text!r}; give x1,y1,x2,y2 in pixels") from None
    return [x1, y1, x2, y2]


def _json(error: EnrichmentError) -> dict[str, Any]:
    names = ("status", "code", "message", "request_id", "details")
    return {name: getattr(error, name) for name in names if getattr(error, name)}


if __name__ == "__main__":
    sys.exit(main())
