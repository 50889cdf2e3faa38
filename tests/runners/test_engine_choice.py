"""Which engine a process takes, on which GPU, and how many calls it is given at a time."""

from __future__ import annotations

import pynvml
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


@pytest.mark.parametrize(
    ("capability", "cuda", "why"),
    [
        ((6, 1), 13000, "its compute capability is 6.1, and torch needs 7.5"),
        ((8, 6), 12080, "its driver 580.95.05 supports CUDA 12.8, and torch needs 13"),
    ],
)
def test_a_card_or_driver_too_old_for_torch_leaves_the_cpu_which_is_said_loudly(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    untouched: None,
    capability: tuple[int, int],
    cuda: int,
    why: str,
) -> None:
    FakeNvml([Card("NVIDIA", "GPU-cccc", capability=capability)], cuda=cuda).install(monkeypatch)
    assert engine_choice.take_gpu(settings()) is None
    assert f"NO GPU IS USED, though there is GPU 0: NVIDIA, 4.3 GB, driver 580.95.05: {why}" in caplog.text
    with pytest.raises(EngineError, match=why):
        engine_choice.check_gpu(settings(required="true"))
    assert engine_choice.take_gpu(settings("torch")) is not None  # who names torch gets torch's own answer


@pytest.mark.parametrize("broken", ["nvmlDeviceGetCudaComputeCapability", "nvmlSystemGetCudaDriverVersion"])
def test_what_nvml_does_not_know_speaks_against_no_card(
    monkeypatch: pytest.MonkeyPatch, untouched: None, broken: str
) -> None:
    FakeNvml([a400()], broken={broken: pynvml.NVML_ERROR_NOT_SUPPORTED}).install(monkeypatch)
    assert engine_choice.take_gpu(settings()) is not None


def test_the_least_capability_is_that_of_the_installed_torch() -> None:
    torch = pytest.importorskip("torch")
    numbers = [flag.removeprefix("sm_") for flag in torch._C._cuda_getArchFlags().split()]
    assert min((int(number[:-1]), int(number[-1])) for number in numbers) == engine_choice._LEAST_CAPABILITY
