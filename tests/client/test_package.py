"""The client as a package: what it declares, a wheel built without a network, and its README."""

from __future__ import annotations

import ast
import email.parser
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

import enrichment_client
from tests.client.service import PET, Service
from tests.client.test_cli import POSE

CLIENT: Final = Path(__file__).parents[2] / "client"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as `pip install ./client` builds it, with the setuptools that is here."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("wheel")
    source = shutil.copytree(
        CLIENT, folder / "client", ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    )
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index", "-w"]
    done = subprocess.run([*command, str(folder), str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_needs_httpx_and_pydantic_only(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (about,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        metadata = email.parser.Parser().parsestr(archive.read(about).decode())
    needed = {re.split(r"[^\w-]", line)[0] for line in metadata.get_all("Requires-Dist", [])}
    assert needed == {"httpx", "pydantic"}
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "AGPL-3.0-only"
    sources = {f"enrichment_client/{path.name}" for path in (CLIENT / "enrichment_client").glob("*.py")}
    assert {name for name in names if ".dist-info/" not in name} == sources | {"enrichment_client/py.typed"}


@pytest.mark.slow
def test_the_installed_command_runs(wheel: Path, tmp_path: Path) -> None:
    """Installed apart from the project, as on another machine."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    subprocess.run([*command, str(tmp_path), str(wheel)], check=True)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "bin/enrich"), "absent.jpg"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.endswith("enrich: error: absent.jpg is no file, folder or URL\n")


def test_it_imports_nothing_else() -> None:
    allowed = {*sys.stdlib_module_names, "httpx", "pydantic", "enrichment_client"}
    only_for_types = {"numpy", "PIL", "typing_extensions"}
    for path in (CLIENT / "enrichment_client").glob("*.py"):
        tree = ast.parse(path.read_text("utf-8"), feature_version=(3, 10))
        for node in tree.body:  # what stands below `if TYPE_CHECKING:` is no statement of the module
            assert not (set(_imported(node)) - allowed), path
        assert not ({name for node in ast.walk(tree) for name in _imported(node)} - allowed - only_for_types), path


def _imported(node: ast.AST) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [name.name.split(".")[0] for name in names]
        case ast.ImportFrom(module=str(module)):
            return [module.split(".")[0]]
    return []


def test_the_readmes_snippet_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (CLIENT / "README.md").read_text("utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    service = Service([httpx.Response(200, json=POSE), httpx.Response(200, json=PET)])
    original = enrichment_client.Client

    def client(url: str, **options: Any) -> enrichment_client.Client:
        return original(url, transport=httpx.MockTransport(service), **options)

    monkeypatch.setattr(enrichment_client, "Client", client)
    monkeypatch.chdir(tmp_path)
    Path("photo.jpg").write_bytes(b"picture")
    exec(compile(snippet, "README.md", "exec"), {})
    assert capsys.readouterr().out == "lying_down ['lying_down', 'hands_raised'] 30.0\n"
    assert len(text.split()) <= 200
    methods = re.search(r"same methods: (.*?)\.\n", text)
    assert methods
    assert all(hasattr(original, name) for name in re.findall(r"`(\w+)`", methods[1]))
