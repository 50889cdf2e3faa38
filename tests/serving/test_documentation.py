"""Runs what README and docs tell a reader to run: curl and Python against a live service, the rest as far as possible.

Every fenced block of a page is found here, so a new one needs no entry in a list. JSON that follows a curl command has
to have the shape of the command's answer.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Any, Final

import pytest

from tests.serving.pictures import encoded, marked
from tests.serving.server import ROOT, Server

pytestmark = pytest.mark.serve

PAGES: Final = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOT_MERGED: Final = "<!-- lead: check -->"  # a page about something that does not exist yet
_BLOCK: Final = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)  # within a list, too
_PICTURE: Final = re.compile(r"[\w-]+\.(?:jpg|png)")
_ASSIGNMENT: Final = re.compile(r"[A-Z_]+=")
_ADDRESS: Final = re.compile(r"(?:localhost|127\.0\.0\.1):8096")
_SHELL: Final = {"curl", "printf", "cp", "enrich"}
_CURL: Final = 'curl() { command curl --silent --show-error --fail-with-body "$@"; }\n'


@dataclass(frozen=True)
class Block:
    """A fenced block. language: `sh`, `python`, `json` or another."""

    language: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    for _, language, text in _BLOCK.findall(page.read_text(encoding="utf-8")):
        yield Block(language, dedent(text))


def commands(text: str) -> Iterator[str]:
    """The commands of a shell block, without comments."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line.strip()


class Reader:
    """Does what a page says, in a folder of their own with pictures of the names that the page uses."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder = folder
        self.address = "{}:{}".format(*server.address)
        (folder / ".venv").symlink_to(sys.prefix)

    def follow(self, page: Path) -> None:
        answer: str | None = None
        for block in blocks(page):
            self._draw(block.text)
            if block.language == "sh":
                answer = self._type(block.text)
            elif block.language == "python":
                self._run([sys.executable, "-c", self._here(block.text)])
            elif block.language == "json":
                documented = json.loads(block.text)
                if answer:
                    check_shape(documented, json.loads(answer), page.name)
                answer = None

    def _draw(self, text: str) -> None:
        """Make each picture that is not there: something to detect at the left, and a surely known colour elsewhere."""
        for name in set(_PICTURE.findall(text)) - {path.name for path in self.folder.iterdir()}:
            picture = marked((4, 4, 20, 44), (64, 48), (220, 30, 90))
            (self.folder / name).write_bytes(encoded(picture, "JPEG" if name.endswith("jpg") else "PNG"))

    def _type(self, text: str) -> str | None:
        """Run a shell block. Returns the answer of its last curl command."""
        answer = None
        for command in commands(text):
            words = [word for word in shlex.split(command, comments=True) if not _ASSIGNMENT.match(word)]
            if words[0] in _SHELL:
                said = self._run(["bash", "-euo", "pipefail", "-c", _CURL + self._here(command)])
                answer = said if words[0] == "curl" else None
            else:
                check_command(words)
        return answer

    def _here(self, text: str) -> str:
        return _ADDRESS.sub(self.address, text)

    def _run(self, command: list[str]) -> str:
        environment = os.environ | {
            "PATH": f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}",
            "ENRICHMENT_LIGHT_URL": f"http://{self.address}",
        }
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}{done.stderr}"
        return done.stdout


def check_command(words: list[str]) -> None:
    """Check a command that would install, build or serve: its program, its targets and its files exist."""
    match words:
        case ["make", *targets]:
            environment = os.environ | {"MAKEFLAGS": ""}
            command = ["make", "--dry-run", *targets]
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        case ["docker", "compose", *options]:
            files = [ROOT / file for flag, file in pairwise(options) if flag == "-f"]
            assert files
            assert all(file.is_file() for file in files), files
        case ["kubectl", "apply", "-k", folder]:
            assert (ROOT / folder / "kustomization.yaml").is_file()
        case [".venv/bin/python", "-m", module, *_]:
            assert find_spec(module), module
        case ["pip" | "pipx", "install", folder]:
            assert (ROOT / folder / "pyproject.toml").is_file()
        case ["sudo", "-u", _, "env", *command]:
            check_command(command)
        case ["git", "pull"] | ["cd", _] | ["sudo", "useradd", *_]:
            pass
        case ["python3.11", "-m", "venv", _]:
            assert find_spec("venv")
        case ["export"]:  # of assignments alone
            pass
        case ["uv", "run", file]:
            assert (ROOT / file).is_file()
        case [program, *_] if program.startswith(".venv/bin/"):
            assert shutil.which(program.removeprefix(".venv/bin/"), path=str(Path(sys.prefix) / "bin")), program
            if "-r" in words:
                assert (ROOT / words[words.index("-r") + 1]).is_file()
        case _:
            pytest.fail(f"no rule how to check `{' '.join(words)}`")


def check_shape(documented: Any, answered: Any, where: str) -> None:
    """Check that an answer has each documented key, with a value of the same type. A documented null says nothing."""
    if documented is None:
        return
    if isinstance(documented, dict):
        assert isinstance(answered, dict), where
        assert documented.keys() <= answered.keys(), f"{where}: {documented.keys() - answered.keys()}"
        for key, value in documented.items():
            check_shape(value, answered[key], f"{where}.{key}")
    elif isinstance(documented, list):
        assert isinstance(answered, list), where
        if documented:
            assert answered, f"{where} is empty"
            check_shape(documented[0], answered[0], f"{where}[]")
    elif isinstance(documented, bool | str):
        assert type(answered) is type(documented), f"{where}: {answered!r}"
    else:
        assert isinstance(answered, int | float), f"{where}: {answered!r}"
        assert not isinstance(answered, bool), where


def runnable() -> list[Path]:
    texts = {page: page.read_text(encoding="utf-8") for page in PAGES}
    return [page for page, text in texts.items() if _BLOCK.search(text) and not text.startswith(NOT_MERGED)]


@pytest.mark.parametrize("page", runnable(), ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_tells_to_run_runs(page: Path, server: Server, tmp_path: Path) -> None:
    Reader(tmp_path, server).follow(page)


@pytest.mark.parametrize("name", ["README.md", "docs/quickstart.md"])
def test_the_first_pages_show_answers(name: str) -> None:
    found = list(blocks(ROOT / name))
    assert {"sh", "json"} <= {block.language for block in found}
    assert any("curl" in block.text for block in found)


@pytest.mark.parametrize(
    ("documented", "answered"),
    [
        ({"a": 1}, {"b": 1}),
        ({"a": 1}, {"a": "1"}),
        ({"a": 1}, {"a": True}),
        ({"a": True}, {"a": 1}),
        ({"a": [1]}, {"a": []}),
        ({"a": [{"b": 1}]}, {"a": [{}]}),
        ({"a": []}, {"a": {}}),
    ],
)
def test_another_shape_is_noticed(documented: Any, answered: Any) -> None:
    with pytest.raises(AssertionError):
        check_shape(documented, answered, "page")


@pytest.mark.parametrize(
    "command",
    [
        "make nothing",
        "docker compose -f deploy/none.yaml up",
        "kubectl apply -k deploy/none",
        ".venv/bin/python -m models.nothing",
        ".venv/bin/nothing",
        "frobnicate",
    ],
)
def test_a_command_that_does_not_exist_is_noticed(command: str) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception, ModuleNotFoundError)):
        check_command(shlex.split(command))
