"""Converts a model's weights into the two graphs that engines load, and compares both with the original network."""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import torch
from torch.export import Dim

from importing.jobs import Conversion
from importing.loaders import load
from importing.loaders.network import Multiples, Network
from importing.proof import prove
from models.catalogue import ModelName
from models.store import GRAPH, PROGRAM

#: ONNX operator set: the newest that every engine of this project reads (TensorRT 10, OpenVINO 2024 and later).
OPSET = 18
LARGEST_BATCH = 64
# Strides per side of the example input. Sizes are symbolic, so a small example gives the same graph faster.
_TRACED_STEPS = (2, 3)


def convert(name: ModelName, weights: Path, folder: Path) -> Conversion:
    """Write `graph.pt2` and `graph.onnx` into `folder`, and check both against the original network.

    weights: a file, or a folder for the transformers models. Raises WeightsRefused if the weights are not the model's,
    GraphInexact if a graph's outputs differ from the original's.
    """
    marks = [time.perf_counter()]
    network = load(name, weights)
    marks.append(time.perf_counter())
    write_program(network, folder / PROGRAM)
    marks.append(time.perf_counter())
    write_graph(network, folder / GRAPH)
    marks.append(time.perf_counter())
    tolerance = prove(network, folder)
    marks.append(time.perf_counter())
    spans = zip(("load", "program", "graph", "proof"), marks, marks[1:], strict=False)
    return Conversion(
        labels=network.labels,
        input=network.image.to_card(),
        outputs=network.outputs,
        tolerance=tolerance,
        seconds={stage: end - start for stage, start, end in spans},
    )


def write_program(network: Network, file: Path) -> None:
    """Write a `torch.export` program. Without example inputs its archive holds only tensors and JSON, no pickle."""
    sizes = {0: Dim("batch", min=1, max=LARGEST_BATCH)}
    if isinstance(size := network.image.size, Multiples):
        bounds = {"min": size.minimum // size.of, "max": size.maximum // size.of}
        sizes |= {1: size.of * Dim("height", **bounds), 2: size.of * Dim("width", **bounds)}
    with warnings.catch_warnings():  # YOLO's head stores its anchor grid in an attribute, but rebuilds it at each run
        warnings.filterwarnings("ignore", message="The tensor attributes? .* assigned during export")
        program = torch.export.export(network.graph, (_example(network),), dynamic_shapes=(sizes,))
    program.example_inputs = None
    torch.export.save(program, file)


def write_graph(network: Network, file: Path) -> None:
    """Write ONNX by torch's tracing exporter, which is much faster than its successor and needs no onnxscript.

    Tracing warns of each Python number that it freezes. The comparison at other sizes shows that none matters.
    """
    sides = {1: "height", 2: "width"} if isinstance(network.image.size, Multiples) else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.graph,
            (_example(network),),
            file,
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=list(network.outputs),
            dynamic_axes={"image": {0: "batch"} | sides} | {output: {0: "batch"} for output in network.outputs},
        )


def _example(network: Network) -> torch.Tensor:
    size = network.image.size
    height, width = (steps * size.of for steps in _TRACED_STEPS) if isinstance(size, Multiples) else size
    return torch.randint(0, 256, (2, height, width, 3), dtype=torch.uint8)
