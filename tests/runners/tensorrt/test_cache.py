from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from runners.tensorrt.cache import EngineCache, EngineInputs

INPUTS = EngineInputs(
    model="pose_estimator",
    weights_sha256="8d23df92" * 8,
    tensorrt="10.16.1.11",
    gpu="NVIDIA RTX A400",
    compute_capability="8.6",
    driver="580.95.05",
    precision="f16",
    max_batch=8,
    max_side=640,
)


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "tensorrt")


def put(cache: EngineCache, inputs: EngineInputs, content: bytes = b"an engine") -> Path:
    with cache.exclusive(), cache.scratch() as folder:
        built = folder / "model.engine"
        built.write_bytes(content)
        return cache.store(inputs, built)


def names(cache: EngineCache) -> set[str]:
    return {path.name for path in cache.folder.iterdir()} - {"build.lock"}


def test_an_engine_is_found_again_by_its_inputs(cache: EngineCache) -> None:
    assert cache.find(INPUTS) is None
    stored = put(cache, INPUTS)
    assert EngineCache(cache.folder).find(replace(INPUTS)) == stored
    assert stored.read_bytes() == b"an engine"
    assert names(cache) == {f"{INPUTS.name}.engine", f"{INPUTS.name}.json"}


@pytest.mark.parametrize(
    "change",
    [
        {"weights_sha256": "00" * 32},
        {"tensorrt": "10.17.0"},
        {"driver": "590.1"},
        {"precision": "f32"},
        {"max_batch": 4},
        {"max_side": 320},
        {"compute_capability": "8.9"},
    ],
)
def test_an_engine_made_with_anything_else_is_deleted(
    cache: EngineCache, change: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    put(cache, INPUTS)
    other = replace(INPUTS, **change)  # type: ignore[arg-type]
    assert other.name != INPUTS.name
    assert cache.find(other) is None
    assert names(cache) == set()
    assert f"made with another {next(iter(change))}" in caplog.text


def test_an_outdated_engine_that_can_not_be_deleted_does_not_hide_the_right_one(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(cache, replace(INPUTS, driver="570.1"))
    stored = put(cache, INPUTS)

    def read_only(self: Path, missing_ok: bool = False) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", read_only)
    assert cache.find(INPUTS) == stored
    assert "can't be deleted: Read-only file system" in caplog.text


def test_engines_of_another_card_and_of_another_model_stay(cache: EngineCache) -> None:
    others = [
        replace(INPUTS, gpu="NVIDIA RTX A5500"),
        replace(INPUTS, model="threat_detector", weights_sha256="67685628" * 8),
    ]
    for other in others:
        put(cache, other)
    assert cache.find(INPUTS) is None
    assert all(cache.find(other) is not None for other in others)


@pytest.mark.parametrize("content", [b"", b"an engin", b"an engineX", b"An engine"])
def test_a_damaged_engine_is_deleted(cache: EngineCache, content: bytes) -> None:
    put(cache, INPUTS).write_bytes(content)
    assert cache.find(INPUTS) is None
    assert names(cache) == set()


@pytest.mark.parametrize("description", [None, "", "{}", "[]", "not json"])
def test_an_engine_without_its_description_is_deleted(cache: EngineCache, description: str | None) -> None:
    note = put(cache, INPUTS).with_suffix(".json")
    note.unlink() if description is None else note.write_text(description)
    assert cache.find(INPUTS) is None
    assert names(cache) == set()


def test_a_failure_is_remembered_until_its_inputs_change_or_the_note_is_deleted(cache: EngineCache) -> None:
    cache.folder.mkdir()
    assert cache.failure(INPUTS) is None
    cache.remember_failure(INPUTS, "out of workspace")
    failure = EngineCache(cache.folder).failure(INPUTS)
    assert failure is not None
    assert failure.startswith("out of workspace (")
    note = cache.folder / f"{INPUTS.name}.failed.json"
    assert f"delete {note} to try again" in failure
    newer = replace(INPUTS, tensorrt="10.17.0")
    assert cache.failure(newer) is None
    assert cache.find(newer) is None
    assert names(cache) == set()  # outdated notes go with outdated engines


def test_a_build_that_succeeds_forgets_the_failure(cache: EngineCache) -> None:
    cache.folder.mkdir()
    cache.remember_failure(INPUTS, "out of workspace")
    put(cache, INPUTS)
    assert cache.failure(INPUTS) is None


def test_the_description_says_what_an_engine_was_made_of(cache: EngineCache) -> None:
    made_of = json.loads(put(cache, INPUTS).with_suffix(".json").read_text())
    assert made_of["gpu"] == "NVIDIA RTX A400"
    assert made_of["tensorrt"] == "10.16.1.11"


def test_one_build_at_a_time(cache: EngineCache) -> None:
    inside: list[str] = []

    def build() -> None:
        with EngineCache(cache.folder).exclusive():
            inside.append("second")

    with cache.exclusive():
        thread = threading.Thread(target=build)
        thread.start()
        time.sleep(0.2)
        inside.append("first")
    thread.join(5)
    assert inside == ["first", "second"]


def test_what_a_dead_build_left_is_removed_by_the_next(cache: EngineCache) -> None:
    left = cache.folder / "building-dead"
    left.mkdir(parents=True)
    (left / "model.onnx").write_bytes(b"x")
    put(cache, INPUTS)
    assert not left.exists()


def test_a_folder_that_can_not_be_written_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(NotADirectoryError), EngineCache(tmp_path / "file" / "tensorrt").exclusive():
        pass
