"""Cuts a graph into parts, so that they run in different precisions or are skipped for some pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import openvino
from openvino import opset13 as operations

from engines.errors import EngineError

#: The last convolution of each branch of a head. Graphs exported by ultralytics name nodes after its modules.
BRANCH: Final = re.compile(r"(?P<head>.*)/cv(?P<number>\d)\.(?P<scale>\d)/cv(?P=number)\.(?P=scale)\.2/Conv")
_SCORES: Final = "3"

Nodes = Mapping[str, Any]


def cut(graph: Path, after: str) -> tuple[openvino.Model, openvino.Model]:
    """Cut the ONNX graph after the node named `after`. The first part's only output is the second part's only input.

    Raises EngineError if there is no such node.
    """
    first, rest = _read(graph), _read(graph)
    return (
        _model([operations.result(_output(first, after))], first.get_parameters()),
        _model(rest.get_results(), [_take_over(_output(rest, after))]),
    )


@dataclass(frozen=True)
class DividedDetector:
    """A YOLO network cut in its head, after the confidences and before the boxes and keypoints.

    trunk: image → the features of each scale, finest first, then the logits (n, classes, height, width) of each scale.

    rests[k]: the logits of all scales, then the features of all scales except the k finest → the graph's outputs.
    In them, boxes and keypoints of those k scales hold arbitrary values. The last rest skips all scales.
    """

    trunk: openvino.Model
    rests: tuple[openvino.Model, ...]


def detector(graph: Path) -> DividedDetector | None:
    """Cut an ONNX graph with the head of ultralytics' YOLOv8, 11 or 12; None if the graph has no such head.

    On each scale the head has a branch `cv3` for scores, `cv2` for boxes and, in pose models, `cv4` for keypoints.
    The decoding joins the branches. Beside their outputs it needs only each scale's height and width.
    """
    model = _read(graph)
    nodes = _by_name(model)
    scales = _scales(nodes)
    if not scales:
        return None
    results = [_features(nodes, scale.first) for scale in scales] + [nodes[scale.scores].output(0) for scale in scales]
    trunk = _model([operations.result(output) for output in results], model.get_parameters())
    try:
        return DividedDetector(trunk, tuple(_rest(graph, scales, left_out) for left_out in range(len(scales) + 1)))
    except RuntimeError:  # OpenVINO's: the decoding has an input that the rest does not get
        return None


def _rest(graph: Path, scales: Sequence[_Scale], left_out: int) -> openvino.Model:
    model = _read(graph)
    nodes = _by_name(model)
    scores = [_take_over(nodes[scale.scores].output(0)) for scale in scales]
    for scale, same_size in zip(scales, scores, strict=True):
        for target in _features(nodes, scale.first).get_target_inputs():
            if target.get_node().get_type_name() == "ShapeOf":
                target.replace_source_output(same_size.output(0))
    for scale, same_size in zip(scales[:left_out], scores, strict=False):
        for name in scale.others:
            _replace(nodes[name].output(0), _zeros_beside(same_size, nodes[name].get_output_partial_shape(0)[1]))
    features = [_take_over(_features(nodes, scale.first)) for scale in scales[left_out:]]
    return _model(model.get_results(), scores + features)


def _zeros_beside(scores: openvino.op.Parameter, channels: openvino.Dimension) -> openvino.Node:
    """Zeros (n, channels, height, width), with n, height and width of `scores`."""
    size = operations.shape_of(scores)
    n, height_width = (operations.gather(size, operations.constant(at), operations.constant(0)) for at in ([0], [2, 3]))
    shape = operations.concat([n, operations.constant([channels.get_length()]), height_width], axis=0)
    return operations.broadcast(operations.constant(np.float32(0)), shape)


@dataclass(frozen=True)
class _Scale:
    """Names of a scale's nodes.

    scores: the output of the score branch. others: the outputs of the other branches. first: the first convolution of
    a branch, which reads the features.
    """

    scores: str
    others: tuple[str, ...]
    first: str


def _scales(nodes: Nodes) -> list[_Scale]:
    """The scales of a head, finest first. Empty unless all scales have the same branches and one input each."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for name in nodes:
        if branch := BRANCH.fullmatch(name):
            found.setdefault((branch["head"], branch["scale"]), {})[branch["number"]] = name
    scales = []
    for _, branches in sorted(found.items()):
        scores = branches.pop(_SCORES, "")
        first = [_first(nodes, name) for name in (scores, *branches.values())]
        if not (scores and branches and all(first)):
            return []
        if len({_features(nodes, name).get_node().get_friendly_name() for name in first}) != 1:
            return []
        scales.append(_Scale(scores, tuple(branches.values()), first[0]))
    alike = len({len(scale.others) for scale in scales}) == 1
    return scales if alike and all(_only_size(_features(nodes, scale.first)) for scale in scales) else []


def _first(nodes: Nodes, output: str) -> str:
    """The name of the first convolution of a branch, "" if there is none. output: such as `…/cv2.0/cv2.0.2/Conv`."""
    begun = (name for name in nodes if name.startswith(output.removesuffix(".2/Conv") + ".0/"))
    return next((name for name in begun if nodes[name].get_type_name() in {"Convolution", "GroupConvolution"}), "")


def _only_size(features: openvino.Output) -> bool:
    """Whether the graph reads only n, height and width of the features' shape. The scores have the same."""
    asking = [target.get_node() for target in features.get_target_inputs()]
    asked = [target.get_node() for node in asking if node.get_type_name() == "ShapeOf" for target in _readers(node)]
    return all(
        node.get_type_name() == "Gather"
        and node.input_value(1).get_node().get_type_name() == "Constant"
        and set(np.ravel(node.input_value(1).get_node().data)) <= {0, 2, 3}
        for node in asked
    )


def _readers(node: Any) -> set[Any]:
    readers: set[Any] = node.output(0).get_target_inputs()
    return readers


def _features(nodes: Nodes, convolution: str) -> openvino.Output:
    """The input of a convolution."""
    features: openvino.Output = nodes[convolution].input_value(0)
    return features


def _read(graph: Path) -> openvino.Model:
    return openvino.Core().read_model(graph)


def _by_name(model: openvino.Model) -> Nodes:
    """Name → node, in topological order."""
    return {node.get_friendly_name(): node for node in model.get_ordered_ops()}


def _output(model: openvino.Model, name: str) -> openvino.Output:
    node = _by_name(model).get(name)
    if node is None:
        raise EngineError(f"the graph has no node {name}")
    return node.output(0)


def _take_over(output: openvino.Output) -> openvino.op.Parameter:
    """Replace `output` by a new input of the model, for all its readers."""
    parameter = operations.parameter(output.get_partial_shape(), openvino.Type.f32)
    _replace(output, parameter)
    return parameter


def _model(results: Sequence[Any], inputs: Sequence[openvino.op.Parameter]) -> openvino.Model:
    """Make a model, and name new nodes by their position.

    OpenVINO's default names count up within the process. With them the cache of compiled graphs would never hit.
    """
    model = openvino.Model(results, inputs)
    model.set_friendly_name("part")
    for place, node in enumerate(model.get_ordered_ops()):
        if node.get_friendly_name() == node.get_name():
            name = f"{node.get_type_name()}-{place}"
            node.set_friendly_name(name)
            if node.get_name() in node.output(0).get_names():
                node.output(0).get_tensor().set_names({name})
    return model


def _replace(output: openvino.Output, node: openvino.Node) -> None:
    for target in output.get_target_inputs():
        target.replace_source_output(node.output(0))
