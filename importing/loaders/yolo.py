"""Loads YOLOv8, YOLO11 and YOLO12 with ultralytics."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import torch
from torch import Tensor, nn
from ultralytics.nn import tasks
from ultralytics.utils import loss, tal

from importing.errors import WeightsRefused
from importing.loaders.checkpoint import Allowed, opening
from importing.loaders.network import ImageInput, Multiples, Network, largest

# Like ULTRALYTICS_SAFE_LOAD=1: ultralytics opens checkpoints only with torch's restricted unpickler.
tasks.SAFE_LOAD = True  # type: ignore[attr-defined]

logger = logging.getLogger(__name__)

HEADS = {"pose": "Pose", "detect": "Detect"}  # ultralytics.nn.modules.head
_COCO = (80, "person", "toothbrush")  # number of its classes, the first and the last
KEYPOINTS = (17, 3)  # COCO's 17, each with x, y, confidence
STRIDE = 32  # pixels, of the head's coarsest level; heights and widths are multiples of it
LARGEST_SIDE = 640  # pixels, for training and for ultralytics' own predictions
CHANNELS = 3
_SHOWN: Final = 200  # characters of a file's content quoted in the error
LIMITS = {"box_px": 0.05, "score": 1e-3, "score_logit": 1e-2, "keypoint_px": 0.05, "keypoint_score": 1e-3}


def _classes(module: ModuleType) -> list[Allowed]:
    """Return a module's own classes, with their names until ultralytics 8.0.136."""
    own = [value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module.__name__]
    former = module.__name__.replace("ultralytics.", "ultralytics.yolo.", 1)
    return [(kind, f"{former}.{kind.__name__}") for kind in own]


# Checkpoints of that time hold their loss function. ultralytics maps the old names to its modules of today.
_FORMER: Final = (*_classes(loss), *_classes(tal))


def load(path: Path, task: str) -> Network:
    """Load a checkpoint of YOLOv8, YOLO11 or YOLO12 with ultralytics. task: "pose" or "detect".

    The graph's one output `predictions` is (B, 4 + classes [+ 51], anchors) float32. Each column holds the box as
    centre x, y, width, height in pixels of the network's input, and one score per class. For "pose" it also holds x, y,
    confidence of each keypoint.

    A checkpoint is a pickle. torch's restricted unpickler and ultralytics' list of known classes refuse a file that
    would run its own code.

    Raises WeightsRefused if the file is no such checkpoint, or is for another task or has another kind of head.
    """
    remedy = "Take the file that ultralytics' own training saved, of a model without classes of your own"
    with opening(path, "an ultralytics checkpoint", remedy, _FORMER):
        content, _ = tasks.torch_safe_load(path)  # type: ignore[no-untyped-call]
    _check_content(path, content)
    with opening(path, "an ultralytics checkpoint", remedy, _FORMER):
        model, _ = tasks.load_checkpoint(path)  # type: ignore[no-untyped-call]
    head: Any = model.model[-1]
    _check(model, head, task)
    names = _names(model, head.nc, task)
    if (trained := model.args.get("imgsz", LARGEST_SIDE)) != LARGEST_SIDE:
        logger.warning("%s was trained at %s pixels; it is served at %d.", path.name, trained, LARGEST_SIDE)
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
    """The fused network with its head in ultralytics' export mode: it decodes boxes and takes any input size."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model.fuse(verbose=False)
        head = self.model.model[-1]
        head.export, head.dynamic, head.format = True, True, "onnx"
        # Python numbers, as reading one from a tensor makes the CPU wait for the GPU and prevents CUDA graphs.
        head.stride = head.stride.tolist()

    def forward(self, image: Tensor) -> Tensor:
        predictions: Tensor = self.model(image.permute(0, 3, 1, 2).float() / 255)
        return predictions


def _check_content(path: Path, content: object) -> None:
    entries = [content.get(key) for key in ("ema", "model")] if isinstance(content, dict) else []
    if any(isinstance(entry, tasks.BaseModel) for entry in entries):
        return
    if any(isinstance(entry, dict) for entry in entries):
        held = "parameters without the network that they belong to"
    else:
        kinds = {key: type(value).__name__ for key, value in content.items()} if isinstance(content, dict) else {}
        held = str(kinds or type(content).__name__)
    raise WeightsRefused(
        f"{path.name} is not an ultralytics checkpoint: it holds {held[:_SHOWN]}. A mapping with the whole network as "
        "'model' is needed, such as best.pt of a training with ultralytics"
    )


def _check(model: Any, head: Any, task: str) -> None:
    kind = type(head).__name__  # isinstance would accept YOLOv10's and YOLO26's heads, which have other outputs
    end_to_end = getattr(head, "one2one_cv2", None) is not None
    if kind != HEADS[task] or end_to_end:
        which = f"end-to-end {kind}, as YOLOv10's and YOLO26's are" if end_to_end else kind
        raise WeightsRefused(
            f"it was made for the task {model.task!r} and its head is {which}; "
            f"a checkpoint of YOLOv8, YOLO11 or YOLO12 for the task {task!r} is needed"
        )
    if task == "pose" and tuple(head.kpt_shape) != KEYPOINTS:
        raise WeightsRefused(f"it gives keypoints of shape {tuple(head.kpt_shape)}; COCO's {KEYPOINTS} are needed")
    if int(max(model.stride)) != STRIDE:
        raise WeightsRefused(f"it has a largest stride of {int(max(model.stride))}; {STRIDE} is needed")
    if (channels := next(model.parameters()).shape[1]) != CHANNELS:
        raise WeightsRefused(f"it takes images of {channels} channels; {CHANNELS} (RGB) are needed")


def _names(model: Any, classes: int, task: str) -> tuple[str, ...]:
    named = getattr(model, "names", None)
    names = named if isinstance(named, dict) else dict(enumerate(named if isinstance(named, list | tuple) else ()))
    if set(names) != set(range(classes)) or not all(isinstance(name, str) and name for name in names.values()):
        raise WeightsRefused(f"it has {classes} classes, but its names are {names}: each class needs one")
    found = tuple(names[index] for index in range(classes))
    if task == "detect" and (classes, found[0], found[-1]) == _COCO:
        raise WeightsRefused(
            "it finds COCO's 80 everyday objects and no weapons: each person in view would be a threat. "
            "Weights for weapons are needed"
        )
    return found


def _compare(expected: Tensor, actual: Tensor, classes: int) -> dict[str, float]:
    keypoints = [output[:, 4 + classes :].reshape(len(output), -1, 3, output.shape[2]) for output in (expected, actual)]
    scores = expected[:, 4 : 4 + classes], actual[:, 4 : 4 + classes]
    figures = {
        "box_px": largest(expected[:, :4], actual[:, :4]),
        "score": largest(*scores),
        # Scores of classes that the photo does not show are all near 0. Logits still reveal differences there.
        "score_logit": largest(*(torch.logit(score.double(), eps=1e-12) for score in scores)),
    }
    if keypoints[0].shape[1]:
        figures["keypoint_px"] = largest(*(points[:, :, :2] for points in keypoints))
        figures["keypoint_score"] = largest(*(points[:, :, 2] for points in keypoints))
    return figures


def write_standin(file: Path, task: str) -> None:
    """Write an untrained checkpoint for `task`, with the classes of the public weights."""
    architecture, kind, names = _STANDINS[task]
    model = kind(architecture, nc=len(names), verbose=False)
    model.names = names
    torch.save({"model": model}, file)


_STANDINS: Final[dict[str, tuple[str, Any, dict[int, str]]]] = {
    "pose": ("yolov8n-pose.yaml", tasks.PoseModel, {0: "person"}),
    "detect": ("yolov8n.yaml", tasks.DetectionModel, {0: "Gun", 1: "explosion", 2: "grenade", 3: "knife"}),
}
