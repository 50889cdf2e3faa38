"""How much of what the processor can compute the engine gets: the bound that no server of the same arithmetic passes.

usage: python -m benchmarks.roofline PICTURE [--seconds 2] [--only NAME ...]

For each model: the arithmetic of its convolutions and matrix products for PICTURE, as the graph has it, and how much of
it the engine does a second in bare loops (benchmarks/limit.py), beside a large product of matrices, which is bound by
nothing but arithmetic. Prints Markdown. Needs the models in the store (make import).
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
import openvino
from openvino import opset13 as operations

from benchmarks import limit
from models import store
from models.catalogue import CATALOGUE
from vision.decoding import OWN_FILES, open_image

_SIDE: Final = 2048  # of the matrices: 16 MB each in f32


def arithmetic(graph: Path, height: int, width: int) -> int:
    """Operations (a multiplication and an addition are two) of convolutions and matrix products for one image."""
    model = openvino.Core().read_model(graph)
    model.reshape({each: [1, height, width, 3] for each in model.inputs})
    return sum(_of_node(node) for node in model.get_ops())


def _of_node(node: Any) -> int:
    kind = node.get_type_name()
    if kind not in {"Convolution", "GroupConvolution", "MatMul"}:
        return 0
    output: int = prod(node.output(0).get_shape())
    second: list[int] = list(node.input(1).get_shape())
    if kind == "MatMul":
        return 2 * output * second[-1 if node.get_attributes()["transpose_b"] else -2]
    # A filter: (inputs, height, width) after the number of outputs, or after groups and outputs of each.
    return 2 * output * prod(second[1:] if kind == "Convolution" else second[2:])


def peak(seconds: float) -> float:
    """Operations per second of f32 matrix products, one on each core the process may use."""
    matrix = np.ones((_SIDE, _SIDE), dtype=np.float32)
    one, other = (operations.parameter(list(matrix.shape), openvino.Type.f32) for _ in range(2))
    product = openvino.Model([operations.matmul(one, other, transpose_a=False, transpose_b=False)], [one, other])
    config = {"INFERENCE_PRECISION_HINT": openvino.Type.f32, "PERFORMANCE_HINT": "THROUGHPUT"}
    compiled = openvino.Core().compile_model(product, "CPU", config)
    calls = [
        partial(compiled.create_infer_request().infer, [matrix, matrix], share_inputs=True)
        for _ in os.sched_getaffinity(0)
    ]
    # Alone: where two threads at a time made a process's first tensor, OpenVINO's binding was seen to hang (2026.4).
    calls[0]()
    return 2 * _SIDE**3 * limit.calls_per_second(calls, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each model, and half for each batch size")
    parser.add_argument("--only", choices=CATALOGUE, nargs="*", default=list(CATALOGUE), help="models")
    arguments = parser.parse_args()
    picture = open_image(arguments.picture.read_bytes(), OWN_FILES).decode()
    print(f"{arguments.picture.name}, {len(os.sched_getaffinity(0))} cores\n")
    print("| model | engine | operations per image, 10⁹ | images/s | 10⁹ operations/s | of f32 matrix products' |")
    print("|---|---|---|---|---|---|")
    for name in arguments.only:
        bare = limit.load(name, picture, arguments.seconds / 2)
        bare.min_score = 0  # of the whole graph
        stored = store.find(name)
        assert stored is not None  # else there were no engine
        operations_each = arithmetic(stored.graph, *bare.image.shape[:2])
        before, rate, after = peak(arguments.seconds), bare.per_second(arguments.seconds), peak(arguments.seconds)
        done, most = operations_each * rate, (before + after) / 2  # around it, as the machine's speed varies
        print(
            f"| {name} | {bare.engine.name} {bare.engine.precision} | {operations_each / 1e9:.1f} | {rate:.1f} "
            f"| {done / 1e9:.0f} | {done / most:.0%} of {most / 1e9:.0f} |",
            flush=True,
        )
        bare.engine.close()


if __name__ == "__main__":
    main()
