"""Which engine a process takes, on which GPU, and how many calls it is given at a time."""

from __future__ import annotations

import pytest

from engines.errors import EngineError
from runners import engine_choice
from settings import DEFAULT_FILE, Settings, load
from tests.engines.nvml import Card, FakeNvml, a400, a5500


@pytest.mark.parametrize(("engine", "calls"), [("openvino", engine_choice.MOST_CALLS), ("torch", 1)])
def test_only_openvino_is_given_calls_at_a_time(engine: str, calls: int) -> None:
    settings = load(DEFAULT_FILE, {"ENRICHMENT_ENGINE": engine})
    assert engine_choice.choose(settings, None) == engine
    assert engine_choice.calls_at_a_time(settings, None) == calls


def settings(engine: str = "auto", required: str = "false") -> Settings:
    return load(DEFAULT_FILE, {"ENRICHMENT_ENGINE": engine, "ENRICHMENT_GPU_REQUIRED": required})


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """take_gpu writes to the process's own environment."""
    for variable in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)


Cards = list[Card]


@pytest.mark.parametrize(
    ("cards", "engine", "said", "taken"),
    [
        ([a5500(), a400()], "auto", "computing on GPU 1: NVIDIA RTX A400, 4.3 GB, driver 580.95.05", True),
        ([], "auto", "NO GPU IS USED: NVML finds none. All models run on the CPU", False),
        ([a5500(), a400()], "openvino", "NO GPU IS USED, though there is GPU 1: NVIDIA RTX A400", False),
    ],
)
def test_the_log_names_the_device_or_says_loudly_that_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    untouched: None,
    cards: Cards,
    engine: str,
    said: str,
    taken: bool,
) -> None:
    FakeNvml(cards).install(monkeypatch)
    caplog.set_level("INFO", "bentoml.enrichment.runner")
    assert (engine_choice.take_gpu(settings(engine)) is not None) is taken
    assert said in caplog.text
    assert [record.levelname for record in caplog.records] == ["INFO" if taken else "WARNING"]


def test_a_variable_that_hides_the_gpu_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, untouched: None
) -> None:
    FakeNvml([a400()]).install(monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert engine_choice.take_gpu(settings()) is None
    assert "NO GPU IS USED: NVML finds none with CUDA_VISIBLE_DEVICES=''" in caplog.text


def test_a_required_gpu_that_is_there_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeNvml([a400()]).install(monkeypatch)
    engine_choice.check_gpu(settings(required="true"))


@pytest.mark.parametrize(
    ("cards", "engine", "why"),
    [([], "auto", "NVML finds none"), ([a400()], "openvino", "ENRICHMENT_ENGINE is openvino")],
)
def test_a_required_gpu_that_would_not_be_used_is_an_error(
    monkeypatch: pytest.MonkeyPatch, cards: Cards, engine: str, why: str
) -> None:
    FakeNvml(cards).install(monkeypatch)
    engine_choice.check_gpu(settings(engine, required="false"))
    with pytest.raises(EngineError, match=rf"gpu_required is true, .*{why}.*ENRICHMENT_GPU_REQUIRED=false"):
        engine_choice.check_gpu(settings(engine, required="true"))


def test_a_gpu_without_torch_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, untouched: None
) -> None:
    FakeNvml([a400()]).install(monkeypatch)
    monkeypatch.setattr(engine_choice, "find_spec", lambda _: None)
    assert engine_choice.take_gpu(settings()) is None
    assert "torch is not installed (requirements/gpu.txt)" in caplog.text
    with pytest.raises(EngineError, match="torch is not installed"):
        engine_choice.check_gpu(settings(required="true"))
