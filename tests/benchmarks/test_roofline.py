from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino
import pytest
from openvino import opset13 as operations

from benchmarks.roofline import arithmetic, peak
from models import store
from tests.serving.server import ROOT


def test_convolutions_and_matrix_products_are_counted_with_all_of_their_inputs(tmp_path: Path) -> None:
    image = operations.parameter([-1, -1, -1, 3], openvino.Type.f32)
    node = operations.transpose(image, [0, 3, 1, 2])
    nothing, one = [0, 0], [1, 1]  # padding; strides and dilations
    node = operations.convolution(node, np.ones((8, 3, 3, 3), np.float32), one, nothing, nothing, one)
    node = operations.group_convolution(node, np.ones((4, 1, 2, 5, 5), np.float32), one, nothing, nothing, one)
    node = operations.reduce_mean(node, [2, 3], keep_dims=False)
    node = operations.matmul(node, np.ones((7, 4), np.float32), transpose_a=False, transpose_b=True)
    node = operations.matmul(node, np.ones((7, 2), np.float32), transpose_a=False, transpose_b=False)
    file = tmp_path / "graph.xml"
    openvino.save_model(openvino.Model([node], [image]), file)
    convolutions = 2 * (8 * 18 * 28) * (3 * 3 * 3) + 2 * (4 * 14 * 24) * (2 * 5 * 5)
    assert arithmetic(file, 20, 30) == convolutions + 2 * 7 * 4 + 2 * 2 * 7


def test_the_peak_is_a_rate() -> None:
    assert 1e9 < peak(0.2) < 1e15


@pytest.mark.weights
def test_the_pose_estimator_has_the_arithmetic_that_ultralytics_states(model_store: Path) -> None:
    stored = store.find("pose_estimator")
    assert stored is not None
    assert arithmetic(stored.graph, 640, 640) == pytest.approx(9.2e9, rel=0.02)  # its documentation's table


@pytest.mark.weights
def test_the_table_has_a_line_for_each_model(model_store: Path, shared: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.roofline",
            str(shared / "images" / "bus.jpg"),
            "--seconds",
            "0.2",
            "--only",
            "person_reid",
            "pet_classifier",
        ],
        cwd=ROOT,
        env=os.environ | {"BENTOML_HOME": str(model_store), "BENTOML_DO_NOT_TRACK": "True"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split(" | ")[0] for line in done.stdout.splitlines()[4:]] == ["| person_reid", "| pet_classifier"]
