"""`make doctor` over models, a machine and an engine that are made up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engines.device import Gpu
from engines.errors import EngineError
from models.card import ModelCard
from models.catalogue import CATALOGUE, ModelName
from models.store import StoredModel, StoreError
from settings import DEFAULT_FILE, load
from tests.models.cards import card
from tools import doctor, machine
from tools.machine import Machine
from tools.measuring import Measured

MACHINE = Machine("Some Processor", ("AVX2",), 4, 8, None, 8000, None)
MS: dict[ModelName, float] = {
    "pose_estimator": 40,
    "threat_detector": 40,
    "person_reid": 10,
    "pet_classifier": 10,
    "depth_estimator": 400,
}


class World:
    """What the doctor finds. models: name → its card, or what the store raises. times: name → ms or an error."""

    def __init__(self) -> None:
        self.machine = MACHINE
        self.gpu: Gpu | None = None
        self.environment: dict[str, str] = {}
        self.models: dict[str, ModelCard | Exception] = {
            name: replace(card(), name=name, weights=spec.weights) for name, spec in CATALOGUE.items()
        }
        self.times: dict[ModelName, float | Exception | None] = dict(MS)
        self.process_mb = 1000.0
        self.models_mb = 500.0

    def find(self, name: ModelName, *, untrained: bool = False) -> StoredModel | None:
        found = self.models.get(f"{name}-untrained" if untrained else name)
        if isinstance(found, Exception):
            raise found
        return None if found is None else StoredModel(f"{name}:1", Path(), found)

    def measuring(self, _: object, gpu: Gpu | None, picture: Path, until: float) -> World:
        assert picture.is_file()
        self.gpu = gpu
        return self

    def measure(self, stored: StoredModel) -> Measured | None:
        ms = self.times[stored.card.name]
        if isinstance(ms, Exception):
            raise ms
        return None if ms is None else Measured(ms, "openvino", "f32", 100)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(doctor, "Measuring", world.measuring)
    monkeypatch.setattr("models.store.find", world.find)
    monkeypatch.setattr(machine, "look", lambda: world.machine)
    monkeypatch.setattr("engines.device.choose", lambda *_: world.gpu)
    monkeypatch.setattr(doctor, "get_settings", lambda: load(DEFAULT_FILE, world.environment))
    monkeypatch.setattr("engines.processor.bf16_pays", lambda: False)
    monkeypatch.setenv("AI_MODELS_PATH", "/nowhere")
    for spec in CATALOGUE.values():
        monkeypatch.delenv(spec.path_variable, raising=False)
    return world


@pytest.fixture
def report(world: World, capsys: pytest.CaptureFixture[str]) -> Callable[[], tuple[int, str]]:
    def run() -> tuple[int, str]:
        code = doctor.main([])
        return code, capsys.readouterr().out

    return run


Report = Callable[[], tuple[int, str]]


def test_with_everything_there_it_says_what_serves_and_how_fast(report: Report) -> None:
    code, said = report()
    assert code == 0
    assert said.endswith("To do\n  nothing\n")
    for part in ("Some Processor, 4 of 8 cores", "AVX2", "8.0 GB, no limit", "NVML finds none"):
        assert part in said
    assert "engine: openvino on the CPU, placement embedded" in said
    for name, ms in MS.items():
        assert f"  {name}: {CATALOGUE[name].weights}@aaaaaaaaaaaa, {ms:.0f} ms by openvino in f32" in said
    assert "pose on every frame: 25.0" in said
    assert "all models on every frame: 2.0\n" in said


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_missing_model_is_an_error_with_the_command_and_the_others_are_measured(
    world: World, report: Report, name: ModelName
) -> None:
    del world.models[name]
    code, said = report()
    assert code == 1
    assert f"  {name}: MISSING\n" in said
    todo = said.split("\nTo do\n")[1]
    assert f"-m models.import_models {name}" in todo
    assert ("--source PATH-OR-URL" in todo) is not bool(CATALOGUE[name].sources)
    assert f"(without {name})" in said
    assert said.count(" ms by ") == len(CATALOGUE) - 1


def test_weights_that_only_have_to_be_imported_are_named(
    world: World, report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "osnet.pth"
    weights.touch()
    monkeypatch.setenv("REID_MODEL_PATH", str(weights))
    monkeypatch.setenv("POSE_MODEL_PATH", str(tmp_path / "typo.pt"))
    del world.models["person_reid"], world.models["pose_estimator"]
    code, said = report()
    assert code == 1
    assert f"person_reid is not imported yet. Its weights are at {weights}: " in said
    assert f"POSE_MODEL_PATH={tmp_path / 'typo.pt'} does not exist" in said


def test_a_busy_machine_is_said(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (7.5, 1.0, 1.0))
    assert "load: 7.5 processes at a time in the last minute; the times below are longer" in report()[1]
    monkeypatch.setattr("os.getloadavg", lambda: (0.5, 1.0, 1.0))
    assert "the times below" not in report()[1]


def test_without_any_weights_it_still_reports(world: World, report: Report) -> None:
    world.models.clear()
    code, said = report()
    assert code == 1
    assert said.count(": MISSING") == len(CATALOGUE)
    assert "nothing was measured" in said


def test_a_stand_in_is_measured_and_still_missing(world: World, report: Report) -> None:
    world.models["depth_estimator-untrained"] = replace(
        card(untrained=True), name=CATALOGUE["depth_estimator"].name, weights="depth"
    )
    del world.models["depth_estimator"]
    code, said = report()
    assert code == 1
    assert "depth_estimator: untrained, a stand-in of random numbers that only `make run` serves, 400 ms" in said
    assert "depth_estimator is missing" in said


@pytest.mark.parametrize("error", [EngineError("no bf16 here"), RuntimeError("no bf16 here"), OSError("no bf16 here")])
def test_a_model_that_fails_does_not_stop_the_report(world: World, report: Report, error: Exception) -> None:
    world.times["person_reid"] = error
    world.models["pet_classifier"] = StoreError("pet_classifier is damaged: delete it")
    code, said = report()
    assert code == 1
    assert "person_reid can't be loaded: no bf16 here" in said
    assert "pet_classifier is damaged: delete it" in said
    assert said.count(" ms by ") == 3


def test_what_there_was_no_time_for_is_no_error(world: World, report: Report) -> None:
    world.times["depth_estimator"] = None
    code, said = report()
    assert code == 0
    assert "depth_estimator: depth-anything-v2-small@aaaaaaaaaaaa, not measured for lack of time" in said
    assert "all models on every frame: 10.0 (without depth_estimator)" in said


def test_a_model_of_the_other_service_is_neither_measured_nor_missing(world: World, report: Report) -> None:
    world.environment["ENRICHMENT_DEPTH_SERVICE"] = "heavy"
    del world.models["depth_estimator"]
    code, said = report()
    assert code == 0
    assert "depth_estimator: served elsewhere (ENRICHMENT_DEPTH_SERVICE=heavy)" in said


def test_memory_is_compared_with_what_may_be_used(world: World, report: Report) -> None:
    world.machine = replace(MACHINE, limit_mb=1500)
    code, said = report()
    assert code == 1
    assert "limited to 1.5 GB" in said
    assert "may be too much for 1500 MB: set ENRICHMENT_MEMORY_BUDGET_MB" in said
    world.environment["ENRICHMENT_MEMORY_BUDGET_MB"] = "300"
    assert "the budget of 300 MB does not hold all models" in report()[1]


def test_a_budget_that_keeps_within_the_limit_is_no_error(world: World, report: Report) -> None:
    world.machine = replace(MACHINE, limit_mb=1950)
    assert report()[0] == 1
    world.environment["ENRICHMENT_MEMORY_BUDGET_MB"] = "300"
    assert report()[0] == 0


def test_a_limit_of_processor_time_that_the_engine_does_not_see_is_said(world: World, report: Report) -> None:
    world.machine = replace(MACHINE, quota=0.5)
    assert "set ENRICHMENT_CPU_THREADS=1" in report()[1]


def test_a_start_that_would_fail_is_an_error(world: World, report: Report) -> None:
    world.environment["ENRICHMENT_GPU_REQUIRED"] = "true"
    code, said = report()
    assert code == 1
    assert "the service does not start: device.gpu_required is true" in said


def test_an_open_port_is_said_and_is_no_error(world: World, report: Report) -> None:
    assert "THE SERVICE LISTENS ON THE NETWORK (HOST=0.0.0.0)" in report()[1]
    world.environment["HOST"] = "127.0.0.1"
    code, said = report()
    assert code == 0
    assert "only this machine: http://127.0.0.1:8096" in said


def test_a_gpu_is_measured_against_its_own_memory(world: World, report: Report) -> None:
    world.gpu = Gpu(1, "NVIDIA RTX A400", "GPU-1", 4295, "580", "8.6")
    code, said = report()
    assert code == 0
    assert "engine: torch on GPU 1: NVIDIA RTX A400, 4.3 GB" in said
    assert "with libraries 1000 MB of 4295 MB" in said
    world.models_mb = 1300
    assert "the budget of 1200 MB does not hold all models" in report()[1]
