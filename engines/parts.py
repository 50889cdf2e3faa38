"""A graph cut in parts: to run in different precisions, or not to run all of them for every picture."""

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

#: The outputs of a head's branches. In a graph that ultralytics exported nodes are named as its modules are.
BRANCH: Final = re.compile(r"(?P<head>.*)/cv(?P<number>\d)\.(?P<scale>\d)/cv(?P=number)\.(?P=scale)\.2/Conv")
_SCORES: Final = "3"

Nodes = Mapping[str, Any]


def cut(graph: Path, after: str) -> tuple[openvino.Model, openvino.Model]:
    """The ONNX graph up to the node named `after`, whose output is the one that the second part takes, and the rest.

    Raises EngineError where there is no such node.
    """
    first, rest = _read(graph), _read(graph)
    return (
        _model([operations.result(_output(first, after))], first.get_parameters()),
        _model(rest.get_results(), [_take_over(_output(rest, after))]),
    )


@dataclass(frozen=True)
class Detector:
    """A YOLO network cut where its head has said how much each place of each scale scores, but not yet what is there.

    trunk: image → the features of each scale, the finest first, then the scores (n, classes, height, width) of each,
    before the sigmoid.
    rests: all scores, then the features of the scales but for the n finest → the graph's outputs, in which the boxes
    and, of poses, keypoints of those n scales mean nothing; the rest for n = 0 first, the last one for all scales.
    """

    trunk: openvino.Model
    rests: tuple[openvino.Model, ...]


def detector(graph: Path) -> Detector | None:
    """An ONNX graph with the head of ultralytics' YOLOv8, 11 or 12 in parts; None where it has another, or none.

    On each scale the head's branch `cv3` gives scores, `cv2` boxes and, of poses, `cv4` keypoints, for every place
    alike. All meet where they are decoded, which needs nothing else but each scale's height and width.
    """
    model = _read(graph)
    nodes = _by_name(model)
    scales = _scales(nodes)
    if not scales:
        return None
    results = [_features(nodes, scale.first) for scale in scales] + [nodes[scale.scores].output(0) for scale in scales]
    trunk = _model([operations.result(output) for output in results], model.get_parameters())
    try:
        return Detector(trunk, tuple(_rest(graph, scales, left_out) for left_out in range(len(scales) + 1)))
    except RuntimeError:  # of OpenVINO: what decodes needs more than it is given
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
    """Zeros (n, channels, height, width) for every place that has scores."""
    size = operations.shape_of(scores)
    n, height_width = (operations.gather(size, operations.constant(at), operations.constant(0)) for at in ([0], [2, 3]))
    shape = operations.concat([n, operations.constant([channels.get_length()]), height_width], axis=0)
    return operations.broadcast(operations.constant(np.float32(0)), shape)


@dataclass(frozen=True)
class _Scale:
    """Names of nodes: what gives the scores, what gives the rest, and a convolution that takes the features."""

    scores: str
    others: tuple[str, ...]
    first: str


def _scales(nodes: Nodes) -> list[_Scale]:
    """The scales of a head, the finest first; none where they are not all made alike, of one input each."""
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
    """`…/cv2.0/cv2.0.2/Conv` → the name of the convolution that the branch begins with; "" where there is none."""
    begun = (name for name in nodes if name.startswith(output.removesuffix(".2/Conv") + ".0/"))
    return next((name for name in begun if nodes[name].get_type_name() in {"Convolution", "GroupConvolution"}), "")


def _only_size(features: openvino.Output) -> bool:
    """Whether nobody asks for more of the features' shape than n, height and width, which the scores have, too."""
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
    """What a convolution takes."""
    features: openvino.Output = nodes[convolution].input_value(0)
    return features


def _read(graph: Path) -> openvino.Model:
    return openvino.Core().read_model(graph)


def _by_name(model: openvino.Model) -> Nodes:
    """The graph's nodes, each after what it depends on."""
    return {node.get_friendly_name(): node for node in model.get_ordered_ops()}


def _output(model: openvino.Model, name: str) -> openvino.Output:
    node = _by_name(model).get(name)
    if node is None:
        raise EngineError(f"the graph has no node {name}")
    return node.output(0)


def _take_over(output: openvino.Output) -> openvino.op.Parameter:
    """A new input in place of `output`, for whatever came after it."""
    parameter = operations.parameter(output.get_partial_shape(), openvino.Type.f32)
    _replace(output, parameter)
    return parameter


def _model(results: Sequence[Any], inputs: Sequence[openvino.op.Parameter]) -> openvino.Model:
    """A model in which new nodes are named by their place: by their numbers in the process no kept graph would fit."""
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
