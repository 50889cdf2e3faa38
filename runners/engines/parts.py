"""A graph cut in two, so that its parts can run in different precisions."""

from __future__ import annotations

from pathlib import Path

import openvino
from openvino import opset13 as operations

from runners.engines.errors import EngineError


def cut(graph: Path, after: str) -> tuple[openvino.Model, openvino.Model]:
    """The ONNX graph up to the node named `after`, whose output is the one that the second part takes, and the rest.

    Raises EngineError where there is no such node.
    """
    first, rest = (openvino.Core().read_model(graph) for _ in range(2))
    return (
        openvino.Model([operations.result(_output(first, after))], first.get_parameters()),
        openvino.Model(rest.get_results(), [_take_over(_output(rest, after))]),
    )


def _output(model: openvino.Model, name: str) -> openvino.Output:
    node = next((node for node in model.get_ordered_ops() if node.get_friendly_name() == name), None)
    if node is None:
        raise EngineError(f"the graph has no node {name}")
    return node.output(0)


def _take_over(output: openvino.Output) -> openvino.op.Parameter:
    """A new input in place of `output`, for whatever came after it."""
    parameter = operations.parameter(output.get_partial_shape(), openvino.Type.f32)
    for target in output.get_target_inputs():
        target.replace_source_output(parameter.output(0))
    return parameter
