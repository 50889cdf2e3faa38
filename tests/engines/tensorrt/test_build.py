"""The watch over the export process, which is made up (exporter.py)."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from engines.tensorrt import build
from engines.tensorrt.build import BuildFailed, BuildStopped, Export
from tests.engines.tensorrt.test_cache import INPUTS

EXPORTER = (sys.executable, "-P", str(Path(__file__).with_name("exporter.py")))


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "EXPORT", EXPORTER)


def run(tmp_path: Path, what: str, timeout_s: float = 30, export: Export | None = None) -> Path:
    checkpoint = tmp_path / "best.pt"
    checkpoint.write_text(what)
    folder = tmp_path / "scratch"
    folder.mkdir()
    return (export or Export()).run(INPUTS, checkpoint, folder, 1.5, timeout_s)


def test_an_engine_comes_out_of_a_copy_of_the_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "bentoml.enrichment.runner")
    engine = run(tmp_path, "slow 0")
    assert engine.parent == tmp_path / "scratch"
    assert engine.read_bytes() == b"an engine out of slow 0"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["best.pt"]
    stages = [record.message for record in caplog.records]
    assert len(stages) == 3  # without TensorRT's own chatter
    assert all(re.match(r"TensorRT build of pose_estimator, \d+ s: ", stage) for stage in stages)
    assert "--max-batch 8 --max-side 640 --precision f16 --workspace 1.5" in stages[1]
    assert "\x1b" not in caplog.text


@pytest.mark.parametrize(
    ("what", "reason", "may_pass"),
    [
        (
            "fail RuntimeError: no kernel image\nsee the documentation",
            "exit code 1: RuntimeError: no kernel image",
            False,
        ),
        ("fail give up", "exit code 1: give up", False),
        ("killed", "exit code -9: ", True),
        ("signal 1", "exit code -1: ", True),
        ("signal 11", "exit code -11: ", False),
        ("signal 6", "exit code -6: ", False),
        ("nothing", "exit code 0: ", False),
        ("fail torch.OutOfMemoryError: CUDA out of memory.", "exit code 1: torch.OutOfMemoryError: CUDA", True),
        ("fail MemoryError: ", "exit code 1: MemoryError", True),
        ("fail OSError: [Errno 12] Cannot allocate memory", "exit code 1: OSError: [Errno 12]", True),
        (
            "fail [TRT] [E] Error Code 2: OutOfMemory (Requested size was 4096 bytes.)\nRuntimeError: build failed",
            "exit code 1: RuntimeError: build failed",
            True,
        ),
    ],
)
def test_a_build_that_fails_says_why_and_whether_that_may_pass(
    tmp_path: Path, what: str, reason: str, may_pass: bool
) -> None:
    with pytest.raises(BuildFailed) as caught:
        run(tmp_path, what)
    assert str(caught.value).startswith(reason)
    assert caught.value.may_pass is may_pass


def test_a_full_disk_says_nothing_of_the_build(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left on device") as caught:
        run(tmp_path, "fail OSError: [Errno 28] No space left on device")
    assert caught.value.errno == 28


def test_a_build_that_hangs_is_ended(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(BuildFailed, match=r"it took over 0\.5 s") as caught:
        run(tmp_path, "hang", timeout_s=0.5)
    assert caught.value.may_pass
    assert time.monotonic() - began < 10


def test_a_build_can_be_stopped_and_is_then_no_failure(tmp_path: Path) -> None:
    export = Export()
    threading.Timer(0.5, export.stop).start()
    with pytest.raises(BuildStopped):
        run(tmp_path, "hang", export=export)


def test_a_build_that_the_system_tells_to_end_is_no_failure(tmp_path: Path) -> None:
    with pytest.raises(BuildStopped):  # a service manager ends the whole group at once, the runner last
        run(tmp_path, "terminated")


def test_one_that_was_stopped_before_it_began_does_not_begin(tmp_path: Path) -> None:
    export = Export()
    export.stop()
    with pytest.raises(BuildStopped):
        run(tmp_path, "slow 0", export=export)


def test_the_export_process_ends_with_the_process_that_wanted_it(tmp_path: Path) -> None:
    note, folder = tmp_path / "note", tmp_path / "scratch"
    folder.mkdir()
    checkpoint = tmp_path / "best.pt"
    checkpoint.write_text(f"orphan {note}")
    code = (
        "from pathlib import Path; from engines.tensorrt import build;"
        "from tests.engines.tensorrt.test_build import EXPORTER, INPUTS; build.EXPORT = EXPORTER;"
        f"build.Export().run(INPUTS, Path({str(checkpoint)!r}), Path({str(folder)!r}), 1, 600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[3])
    try:
        for _ in range(600):
            if note.exists() and note.read_text():
                break
            time.sleep(0.05)
        assert note.read_text().isdigit()
    finally:
        parent.kill()  # as the OOM killer does it: nothing of its own runs any more
        parent.wait()
    for _ in range(100):
        if note.read_text() == "ended":
            break
        time.sleep(0.05)
    assert note.read_text() == "ended"


@pytest.mark.slow
def test_the_real_export_needs_nothing_of_the_project_and_names_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    file = Path(build.EXPORT[-1])
    imported = {
        alias.name.split(".")[0]
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in ([ast.alias(node.module or "")] if isinstance(node, ast.ImportFrom) else node.names)
    }
    assert imported == {"__future__", "argparse", "os", "sys", "threading", "pathlib", "ultralytics"}
    # Here there is no GPU: the real process, with the real exporter in it, ends with that reason.
    folder = tmp_path / "scratch"
    folder.mkdir()
    checkpoint = tmp_path / "best.pt"
    make = (
        "import sys; from pathlib import Path; from importing.loaders import yolo;"
        "yolo.write_standin(Path(sys.argv[1]), 'detect')"
    )
    environment = {**os.environ, "YOLO_CONFIG_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", make, str(checkpoint)], cwd=file.parents[2], env=environment, check=True)
    with pytest.raises(BuildFailed, match=r"exit code 1: ValueError: Invalid CUDA 'device=0' requested"):
        Export().run(INPUTS, checkpoint, folder, 1, 300)
