from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.tasks import load_checkpoint, torch_safe_load

from models.errors import WeightsRefused
from models.loaders.network import ImageInput, Multiples, Network, largest, refusing

HEADS = {"pose": "Pose", "detect": "Detect"}  # ultralytics.nn.modules.head
KEYPOINTS = (17, 3)  # COCO's seventeen, each x, y, confidence
STRIDE = 32  # the coarsest of YOLOv8's three levels: heights and widths are multiples of it
LARGEST_SIDE = 640  # what the weights were trained at and what ultralytics predicts at
LIMITS = {"box_px": 0.05, "score": 1e-3, "score_logit": 1e-2, "keypoint_px": 0.05, "keypoint_score": 1e-3}


def load(path: Path, task: str) -> Network:
    """Load a YOLOv8 checkpoint with ultralytics; `task` is "pose" or "detect".

    The graph's one output `predictions` is (B, 4 + classes [+ 51], anchors) float32: box centre x, y, width, height in
    pixels of the network's input, one score per class, and for "pose" x, y, confidence of each keypoint.

    A checkpoint is a pickle: it is opened with torch's restricted unpickler and ultralytics' list of known classes
    first, so that a file which would run code of its own is refused instead.

    Raises WeightsRefused for files that are no such checkpoint, made for another task or with another kind of head.
    """
    with refusing(path, "an ultralytics checkpoint"):
        torch_safe_load(path, safe_only=True)  # type: ignore[no-untyped-call]
        model, _ = load_checkpoint(path)  # type: ignore[no-untyped-call]
        head: Any = model.model[-1]
    _check(model, head, task)
    names = _names(model, head.nc)
    return Network(
        graph=_Decoded(copy.deepcopy(model)),
        original=lambda image: (model(image.permute(0, 3, 1, 2).float() / 255)[0],),
        image=ImageInput(Multiples(STRIDE, minimum=STRIDE, maximum=LARGEST_SIDE)),
        outputs=("predictions",),
        labels=names,
        probes=((640, 480), (384, 640)),
        compare=lambda expected, actual: _compare(expected[0], actual[0], len(names)),
        limits=LIMITS,
    )


class _Decoded(nn.Module):
    """The fused network, its head switched as ultralytics' own exporter does: decoded boxes, any input size."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model.fuse(verbose=False)
        head = self.model.model[-1]
        head.export, head.dynamic, head.format = True, True, "onnx"
        # Numbers: reading one out of a tensor makes the CPU wait for a GPU, and no CUDA graph can be made of it.
        head.stride = head.stride.tolist()

    def forward(self, image: Tensor) -> Tensor:
        predictions: Tensor = self.model(image.permute(0, 3, 1, 2).float() / 255)
        return predictions


def _check(model: Any, head: Any, task: str) -> None:
    kind = type(head).__name__  # by name: YOLOv10's and YOLO26's heads are subclasses with other outputs
    if kind != HEADS[task] or head.end2end:
        end_to_end = "end-to-end " if getattr(head, "end2end", False) else ""
        raise WeightsRefused(
            f"it was made for the task {model.task!r} and its head is {end_to_end}{kind}; "
            f"a YOLOv8 checkpoint for the task {task!r} is needed"
        )
    if task == "pose" and tuple(head.kpt_shape) != KEYPOINTS:
        raise WeightsRefused(f"it gives keypoints of shape {tuple(head.kpt_shape)}; COCO's {KEYPOINTS} are needed")
    if int(max(model.stride)) != STRIDE:
        raise WeightsRefused(f"it has a largest stride of {int(max(model.stride))}; {STRIDE} is needed")


def _names(model: Any, classes: int) -> tuple[str, ...]:
    names = dict(model.names)
    if sorted(names) != list(range(classes)) or not all(isinstance(name, str) and name for name in names.values()):
        raise WeightsRefused(f"it has {classes} classes, but its names are {names}: each class needs one")
    return tuple(names[index] for index in range(classes))


def _compare(expected: Tensor, actual: Tensor, classes: int) -> dict[str, float]:
    keypoints = [output[:, 4 + classes :].reshape(len(output), -1, 3, output.shape[2]) for output in (expected, actual)]
    scores = expected[:, 4 : 4 + classes], actual[:, 4 : 4 + classes]
    figures = {
        "box_px": largest(expected[:, :4], actual[:, :4]),
        "score": largest(*scores),
        # Scores of what the photo does not show are equal because they are all nothing: compare before the sigmoid too.
        "score_logit": largest(*(torch.logit(score.double(), eps=1e-12) for score in scores)),
    }
    if keypoints[0].shape[1]:
        figures["keypoint_px"] = largest(*(points[:, :, :2] for points in keypoints))
        figures["keypoint_score"] = largest(*(points[:, :, 2] for points in keypoints))
    return figures
