"""One image through compiled parts, and what may be left out."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import openvino
import pytest
from openvino import opset13 as operations

from engines.deadline import Abandoned, Deadline
from engines.lanes import Chain, Stoppable, _least_logit


def part(factor: float, dtype: Any = openvino.Type.f32) -> openvino.CompiledModel:
    """A graph that multiplies what it takes."""
    image = operations.parameter([1, 2, 2, 3], dtype)
    scaled = operations.multiply(operations.convert(image, "f32"), operations.constant(np.float32(factor)))
    return openvino.Core().compile_model(openvino.Model([scaled], [image]), "CPU")


@pytest.fixture
def image() -> Any:
    return np.full((1, 2, 2, 3), 5, np.uint8)


def test_each_part_takes_what_the_one_before_gives(image: Any) -> None:
    chain = Chain([part(2, openvino.Type.u8), part(3)])
    (output,) = chain.infer(image, 0, None)
    assert output.tolist() == np.full((1, 2, 2, 3), 30.0).tolist()


def test_a_stoppable_graph_gives_what_a_chain_gives(image: Any) -> None:
    (output,) = Stoppable(part(2, openvino.Type.u8)).infer(image, 0, Deadline.after(10))
    assert output.tolist() == np.full((1, 2, 2, 3), 10.0).tolist()


def test_what_fails_for_another_reason_than_its_deadline_is_told(image: Any) -> None:
    class Broken:
        def start_async(self, *_: Any, **__: Any) -> None: ...

        def wait(self) -> None:
            raise RuntimeError("no kernel")

        def cancel(self) -> None: ...

    lane = Stoppable.__new__(Stoppable)
    lane.first = cast(Any, Broken())
    with pytest.raises(RuntimeError, match="no kernel"):
        lane.infer(image, 0, Deadline.after(10))
    over = Deadline.after(10)
    over.abandon()
    with pytest.raises(Abandoned):
        lane.infer(image, 0, over)


def test_a_late_stop_hits_no_later_run(image: Any) -> None:
    class Request:
        cancelled = 0
        results = ({0: None},)

        def start_async(self, *_: Any, **__: Any) -> None: ...

        def wait(self) -> None:
            during.append(deadline._stops[-1])
            during[-1]()

        def cancel(self) -> None:
            self.cancelled += 1

    during: list[Any] = []
    deadline = Deadline.after(10)
    lane = Stoppable.__new__(Stoppable)
    request = Request()
    lane.first = cast(Any, request)
    lane.infer(image, 0, deadline)
    assert request.cancelled == 1
    during[0]()  # abandon() took it before the run ended, and calls it now
    assert request.cancelled == 1


def test_the_least_confidence_before_its_sigmoid_leaves_room_for_rounding() -> None:
    assert _least_logit(0) == -math.inf
    assert _least_logit(1) == math.inf
    for score in (0.01, 0.25, 0.5, 0.99):
        assert _least_logit(score) < math.log(score / (1 - score))
        assert 1 / (1 + math.exp(-_least_logit(score))) == pytest.approx(score, rel=0.08)
