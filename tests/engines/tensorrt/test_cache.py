from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from engines.tensorrt.cache import EngineCache, EngineInputs

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
        {"tensorrt": "10.17.0", "weights_sha256": "00" * 32},
    ],
)
def test_an_engine_that_its_own_configuration_has_outdated_is_deleted(
    cache: EngineCache, change: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    put(cache, INPUTS)
    other = replace(INPUTS, **change)  # type: ignore[arg-type]
    cache.remember_failure(replace(INPUTS, weights_sha256="11" * 32), "no kernel image", may_pass=False)
    assert cache.find(other) is None
    assert names(cache) == set()
    assert f"built with another {sorted(change)[-1]}" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        {"driver": "590.1"},
        {"precision": "f32"},
        {"max_batch": 4},
        {"max_side": 320},
        {"compute_capability": "8.9"},
        {"gpu": "NVIDIA RTX A5500"},
        {"model": "threat_detector"},
        {"precision": "f32", "tensorrt": "10.17.0", "weights_sha256": "00" * 32},
    ],
)
def test_engines_and_failures_of_another_configuration_stay(cache: EngineCache, change: dict[str, object]) -> None:
    put(cache, INPUTS)
    failed = replace(INPUTS, max_batch=2)
    cache.remember_failure(failed, "no kernel image", may_pass=False)
    other = replace(INPUTS, **change)  # type: ignore[arg-type]
    assert cache.find(other) is None
    put(cache, other)
    assert cache.find(other) is not None
    assert cache.find(INPUTS) is not None  # they take turns
    assert cache.find(other) is not None
    assert cache.failure(failed, 0) is not None


def test_what_cannot_be_said_to_be_outdated_stays_and_hides_nothing(cache: EngineCache) -> None:
    stored = put(cache, INPUTS)
    unknown = put(cache, replace(INPUTS, max_batch=4))
    unknown.with_suffix(".json").unlink()
    unknown.with_suffix(".json").mkdir()  # can't be read
    assert cache.find(INPUTS) == stored
    assert unknown.exists()


def test_an_outdated_engine_that_can_not_be_deleted_does_not_hide_the_right_one(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(cache, replace(INPUTS, tensorrt="10.15.0"))
    stored = put(cache, INPUTS)

    def read_only(self: Path, missing_ok: bool = False) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", read_only)
    assert cache.find(INPUTS) == stored
    assert "can't be read or deleted: Read-only file system" in caplog.text


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


def test_a_failure_for_good_holds_until_a_restart_or_its_inputs_change(cache: EngineCache) -> None:
    cache.folder.mkdir()
    began = time.time()
    assert cache.failure(INPUTS, began) is None
    cache.remember_failure(INPUTS, "no kernel image", may_pass=False)
    failure = EngineCache(cache.folder).failure(INPUTS, began)
    assert failure is not None
    assert failure.again_s is None
    assert failure.text.startswith("no kernel image (")
    assert f"delete {cache.folder / INPUTS.name}.failed.json" in failure.text
    assert cache.failure(INPUTS, time.time() + 1) is None  # whoever starts later
    newer = replace(INPUTS, tensorrt="10.17.0")
    assert cache.failure(newer, began) is None
    assert cache.find(newer) is None
    assert names(cache) == set()  # outdated notes go with outdated engines


def test_a_failure_that_may_pass_holds_ever_longer_also_over_a_restart(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.folder.mkdir()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    minutes = [10, 20, 40, 80, 160, 320, 360, 360]
    for wait in minutes:
        cache.remember_failure(INPUTS, "it took over 900 s", may_pass=True)
        failure = EngineCache(cache.folder).failure(INPUTS, now + 1)
        assert failure is not None
        assert failure.again_s == pytest.approx(wait * 60)
        assert "it is tried again at " in failure.text
        now += wait * 60 + 1
        assert cache.failure(INPUTS, 0) is None
    put(cache, INPUTS)  # a build that goes well forgets them
    cache.remember_failure(INPUTS, "it took over 900 s", may_pass=True)
    failure = cache.failure(INPUTS, 0)
    assert failure is not None
    assert failure.again_s == pytest.approx(600)


@pytest.mark.parametrize("may_pass", [True, False])
def test_a_failure_in_the_future_is_no_obstacle_as_the_clock_was_put_back(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch, may_pass: bool
) -> None:
    cache.folder.mkdir()
    began = time.time()
    with monkeypatch.context() as ahead:
        ahead.setattr(time, "time", lambda: began + 10**8)
        cache.remember_failure(INPUTS, "it took over 900 s", may_pass=may_pass)
    assert cache.failure(INPUTS, began) is None


@pytest.mark.parametrize(
    "note", ['{"reason": "of an older version"}', '{"failed_at": "x", "may_pass": true}', "[]", ""]
)
def test_a_note_of_another_kind_is_no_obstacle(cache: EngineCache, note: str) -> None:
    cache.folder.mkdir()
    (cache.folder / f"{INPUTS.name}.failed.json").write_text(note)
    assert cache.failure(INPUTS, time.time()) is None
    cache.remember_failure(INPUTS, "killed", may_pass=True)
    failure = cache.failure(INPUTS, 0)
    assert failure is not None
    assert failure.again_s == pytest.approx(600, abs=5)


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
