"""Which commands `make image` runs, over programs that are not run."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools import image
from tools.image import ROOT

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


class Programs:
    """Stands in for subprocess.run: keeps the commands. fails: the command that begins so fails."""

    def __init__(self) -> None:
        self.commands: list[tuple[str, ...]] = []
        self.homes: list[str | None] = []
        self.requirements: str | None = None
        self.fails: tuple[str, ...] = ("nothing",)

    def __call__(self, command: tuple[str, ...], **options: Any) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        self.homes.append(options["env"].get("BENTOML_HOME"))
        if command[:2] == ("bentoml", "build"):
            bentofile = yaml.safe_load(Path(command[command.index("-f") + 1]).read_text())
            self.requirements = bentofile["python"]["requirements_txt"]
        failed = command[: len(self.fails)] == self.fails
        return subprocess.CompletedProcess(command, 3 if failed else 0, "__tag__:enrichment-light:abc\n")

    def index(self, *beginning: str) -> int:
        (found,) = [index for index, it in enumerate(self.commands) if it[: len(beginning)] == beginning]
        return found


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch, home: Path) -> Programs:
    """`home`, the user's own, is in the environment."""
    running = Programs()
    monkeypatch.setattr(subprocess, "run", running)
    assert os.environ["BENTOML_HOME"] == str(home)
    return running


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def run(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["image", *arguments])
        image.main()

    return run


def test_the_gpu_s_image_imports_mounted_weights_and_packs_none(
    programs: Programs, main: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    main("--extra", "tensorrt-cu13>=10.13")
    name = f"ai-enrichment-light:{VERSION}"
    assert programs.requirements == "requirements/gpu.txt"
    containerize, slim = programs.index("bentoml", "containerize"), programs.index("docker", "build")
    assert programs.index("bentoml", "build") < containerize < slim < programs.index("docker", "rmi")
    assert {"enrichment-light:abc", f"{name}-full"} <= set(programs.commands[containerize])
    values = {"IMPORT=true", "VARIANT=gpu", f"FULL={name}-full", "EXTRA=tensorrt-cu13>=10.13"}
    assert {*values, name} <= set(programs.commands[slim])
    assert programs.commands[slim][-1] == "."  # the Dockerfile that Docker alone builds, too
    assert os.environ["BENTOML_HOME"] not in programs.homes[: containerize + 1]  # an empty store, so nothing is packed
    assert programs.commands[-1] == ("docker", "rmi", f"{name}-full")
    assert capsys.readouterr().out == f"{name}\n"


def test_the_cpu_s_image_packs_the_store_and_imports_nothing(
    programs: Programs, main: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("models.store.find", lambda name: None if name == "person_reid" else name)
    main("--variant", "cpu", "--tag", "mine")
    assert programs.requirements == "requirements/serve.txt"
    assert {"IMPORT=false", "VARIANT=cpu", "ai-enrichment-light:mine"} <= set(
        programs.commands[programs.index("docker", "build")]
    )
    out = capsys.readouterr().out
    assert "NOT IN THE STORE, SO NOT IN THE IMAGE: person_reid;" in out
    assert out.endswith("ai-enrichment-light:mine\n")


@pytest.mark.parametrize(("variant", "packs"), [("cpu", True), ("gpu", False)])
def test_for_the_dockerfile_it_writes_the_bento_and_needs_no_docker(
    programs: Programs,
    main: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    variant: str,
    packs: bool,
) -> None:
    asked: set[str] = set()

    def find(name: str) -> str:
        asked.add(name)
        return name

    monkeypatch.setattr("models.store.find", find)
    main("--variant", variant, "--bento", str(tmp_path / "bento.tar"))
    assert programs.commands[-1] == ("bentoml", "export", "enrichment-light:abc", str(tmp_path / "bento.tar"))
    assert len(programs.commands) == 2
    assert bool(asked) is packs


@pytest.mark.parametrize(("variant", "tag"), [("cpu", f"{VERSION}-cpu"), ("gpu", VERSION)])
def test_without_a_tag_it_is_the_version(variant: str, tag: str) -> None:
    assert image.default_tag(variant) == tag


def test_what_can_not_serve_is_not_built(
    programs: Programs, main: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main("--variant", "cpu", "--weights", "mounted")
    assert "has no torch and can't import mounted weights" in capsys.readouterr().err
    monkeypatch.setattr("models.store.find", dict[str, str]().get)
    with pytest.raises(SystemExit, match="no model is in the store"):
        main("--weights", "packed")
    assert programs.commands == []
    assert image.packed("mounted") is False
    monkeypatch.setattr("models.store.find", lambda name: name)
    assert image.packed("packed") is True
    assert "NOT IN THE STORE" not in capsys.readouterr().out


@pytest.mark.parametrize("step", [("bentoml", "build"), ("bentoml", "containerize"), ("docker", "build")])
def test_a_command_that_fails_ends_it_by_name_and_leaves_no_whole_image(
    programs: Programs, main: Callable[..., None], step: tuple[str, ...]
) -> None:
    programs.fails = step
    with pytest.raises(SystemExit, match=rf"`{' '.join(step)}.*` failed with 3"):
        main()
    names = [command[:2] for command in programs.commands]
    assert names[-1] == (("docker", "rmi") if step == ("docker", "build") else step)
