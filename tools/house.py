"""Measures the structure of the code: files that name a model, import cycles, long files, functions in a request.

usage: python -m tools.house [IMAGE]

With an IMAGE, it also counts the functions that a /pose-analyze request calls, with the models of the store.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import FrameType
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
ROOMS: Final = ("api", "engines", "importing", "models", "runners", "settings", "tasks", "vision")
_LONG: Final = 300  # lines


def modules() -> list[Path]:
    """The files of the product: the packages in ROOMS and service.py."""
    return [ROOT / "service.py", *(path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")))]


def naming(*words: str) -> list[str]:
    """The files that contain one of these words."""
    return [str(path.relative_to(ROOT)) for path in modules() if any(word in path.read_text("utf-8") for word in words)]


def unsaid() -> list[str]:
    """The files without a module docstring."""
    return [str(path.relative_to(ROOT)) for path in modules() if not ast.get_docstring(_tree(path))]


def reading_settings() -> list[str]:
    """The files that read settings on import."""
    return [str(path.relative_to(ROOT)) for path in modules() if _calls_at_import(_tree(path), "get_settings")]


def circles() -> list[str]:
    """Find files that import each other, directly or through others. Returns the first circle, or nothing."""
    try:
        TopologicalSorter({_name(path): _imports(path) for path in modules()}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def long_files() -> dict[str, int]:
    """File → number of lines, of the files over the limit."""
    lines = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in modules()}
    return {path: count for path, count in lines.items() if count > _LONG}


class Way:
    """Collects our functions that are called within `traced`, on this thread and on threads that start there."""

    def __init__(self) -> None:
        self.functions: set[tuple[str, str]] = set()  # file, qualified name

    @property
    def files(self) -> set[str]:
        return {file for file, _ in self.functions}

    @contextmanager
    def traced(self) -> Iterator[None]:
        threading.setprofile(self._see)
        sys.setprofile(self._see)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def _see(self, frame: FrameType, event: str, _: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event != "call" or frame.f_code.co_name.startswith("<") or not path.is_relative_to(ROOT):
            return
        if path.relative_to(ROOT).parts[0] in ROOMS:
            self.functions.add((str(path.relative_to(ROOT)), frame.f_code.co_qualname))


async def ask(route: str, image: bytes, runner: Any) -> tuple[Way, bytes]:
    """Send one request through the front to a runner in this process. Returns the called functions and the body."""
    from api.answering import Answering
    from api.embedded import EmbeddedLink
    from api.front import Front
    from api.steps import MODEL_OF
    from api.tracing import Spans
    from settings import get_settings

    settings = get_settings()
    link = EmbeddedLink("runner", list(runner.names), runner, ())
    answering = Answering(settings, dict.fromkeys(runner.names, link), Spans.of(settings.tracing))
    sent = [{"type": "http.request", "body": image, "more_body": False}]
    body = b""

    async def receive() -> Any:
        if not sent:
            await asyncio.sleep(60)  # like a client that waits for its answer
        return sent.pop()

    async def send(message: Any) -> None:
        nonlocal body
        body += message.get("body", b"")

    async def nothing(*_: Any) -> None: ...

    front = Front(nothing, frozenset(MODEL_OF), settings.limits, lambda: answering, outermost=True)
    scope = {
        "type": "http",
        "method": "POST",
        "path": route,
        "query_string": b"",
        "headers": [(b"content-type", b"image/jpeg")],
    }
    way = Way()
    with way.traced():
        await front(scope, receive, send)
    return way, body


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    known = {_name(module) for module in modules()}
    # `from package import module` imports the module; the package's __init__ does not count.
    files = found & known
    return {name for name in files if not any(other.startswith(f"{name}.") for other in files)} - {_name(path)}


def _calls_at_import(tree: ast.Module, function: str) -> bool:
    """Whether a module calls a function at its top level."""
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function:
            return True
        pending += ast.iter_child_nodes(node)
    return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", nargs="?", type=Path)
    options = parser.parse_args(arguments)
    pets = naming("pet_classifier", "PetClassifier")
    service = len((ROOT / "service.py").read_text("utf-8").splitlines())
    print(f"{len(modules())} modules; service.py has {service} lines")
    print(f"files that name the pet classifier: {len(pets)}: {', '.join(pets)}")
    print(f"import cycles: {circles() or 'none'}")
    print(f"files without a module docstring: {unsaid() or 'none'}")
    print(f"files that read settings on import: {', '.join(reading_settings())}")
    print(f"files over {_LONG} lines: {long_files() or 'none'}")
    if options.image is not None:
        print(asyncio.run(_way(options.image.read_bytes())))
    return 0


async def _way(image: bytes) -> str:
    import runners
    from settings import get_settings

    runner = runners.compose(get_settings())["pose_estimator"].inner()
    try:
        await ask("/pose-analyze", image, runner)  # loads the model
        way, _ = await ask("/pose-analyze", image, runner)
    finally:
        runner.close()
    flow = {(file, name) for file, name in way.functions if not file.startswith("vision/")}
    return (
        f"a /pose-analyze request calls {len(way.functions)} of our functions in {len(way.files)} files;"
        f" without vision/: {len(flow)} in {len({file for file, _ in flow})}"
    )


if __name__ == "__main__":
    sys.exit(main())
