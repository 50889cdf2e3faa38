from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import openvino
import pytest

from engines import processor


class FakeRequest:
    """A compiled graph that takes so many seconds, and every other time ten times as long."""

    def __init__(self, seconds: float, clock: SimpleNamespace) -> None:
        self.seconds = seconds
        self.clock = clock
        self.calls = 0

    def infer(self, _: object) -> None:
        self.calls += 1
        self.clock.now += self.seconds * (10 if self.calls % 2 else 1)


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    processor.bf16_pays.cache_clear()
    yield
    processor.bf16_pays.cache_clear()


@pytest.mark.parametrize(("f32_ms", "bf16_ms", "pays"), [(4, 2, True), (2, 4, False), (4, 3.9, False)])
def test_bf16_pays_where_it_is_clearly_faster(
    f32_ms: float, bf16_ms: float, pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0)
    times = {openvino.Type.f32: f32_ms, openvino.Type.bf16: bf16_ms}
    requests = {kind: FakeRequest(milliseconds / 1000, clock) for kind, milliseconds in times.items()}
    monkeypatch.setattr(processor, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(processor, "capabilities", lambda: ["FP32", "BF16"])
    monkeypatch.setattr(processor, "_compiled", requests.__getitem__)
    assert processor.bf16_pays() is pays


def test_without_instructions_it_does_not_pay_and_nothing_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "capabilities", lambda: ["FP32"])
    monkeypatch.setattr(processor, "_compiled", lambda _: pytest.fail("computed"))
    assert processor.bf16_pays() is False


@pytest.mark.skipif("BF16" not in processor.capabilities(), reason="this CPU has no bf16 instructions")
def test_what_is_timed_computes_in_the_precision_that_is_asked_for() -> None:
    for hint in (openvino.Type.f32, openvino.Type.bf16):
        graph = processor._compiled(hint).get_compiled_model().get_runtime_model()
        types = {
            str(node.get_rt_info()["runtimePrecision"].astype(str))
            for node in graph.get_ops()
            if node.get_rt_info()["layerType"].astype(str) == "Convolution"
        }
        assert types == {hint.get_type_name()}
