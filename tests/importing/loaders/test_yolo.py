from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel, PoseModel, yaml_model_load
from ultralytics.utils.loss import v8DetectionLoss

from importing.errors import WeightsRefused
from importing.loaders import load, write_standin
from importing.loaders.yolo import load as load_yolo
from tests.importing.loaders.pickles import renamed


@pytest.fixture(scope="module")
def pose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pose")
    write_standin("pose_estimator", folder)
    return folder / "yolov8n-pose.pt"


@pytest.fixture(scope="module")
def threat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("threat")
    write_standin("threat_detector", folder)
    return folder / "best.pt"


def made(model: Any, folder: Path) -> Path:
    """A checkpoint of an untrained network."""
    torch.save({"model": model}, folder / "made.pt")
    return folder / "made.pt"


def changed(checkpoint: Path, folder: Path, **attributes: Any) -> Path:
    """A copy of a checkpoint whose model has other attributes."""
    content = torch.load(checkpoint, weights_only=False)
    for name, value in attributes.items():
        setattr(content["model"], name, value)
    torch.save(content, folder / "changed.pt")
    return folder / "changed.pt"


class Intruder:
    """Runs code of its own when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_threat_labels_are_the_checkpoint_s_own_names_by_index(threat: Path, tmp_path: Path) -> None:
    names = {3: "knife", 1: "explosion", 0: "Gun", 2: "grenade"}  # in whatever order the mapping holds them
    network = load("threat_detector", changed(threat, tmp_path, names=names))
    assert network.labels == ("Gun", "explosion", "grenade", "knife")


def test_pose_gives_box_score_and_seventeen_keypoints(pose: Path) -> None:
    network = load("pose_estimator", pose)
    assert network.labels == ("person",)
    with torch.inference_mode():
        predictions = network.graph(torch.zeros(2, 64, 96, 3, dtype=torch.uint8))
    assert predictions.shape == (2, 4 + 1 + 17 * 3, 8 * 12 + 4 * 6 + 2 * 3)


@pytest.mark.parametrize("version", ["yolo11n", "yolo12n"])
def test_yolo11_and_yolo12_give_the_same_kind_of_predictions(version: str, tmp_path: Path) -> None:
    model = PoseModel(f"{version}-pose.yaml", nc=1, verbose=False)  # type: ignore[no-untyped-call]
    network = load("pose_estimator", made(model, tmp_path))
    image = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8)
    with torch.inference_mode():
        predictions, (original,) = network.graph(image), network.original(image)
    assert predictions.shape == (2, 4 + 1 + 17 * 3, 8 * 12 + 4 * 6 + 2 * 3)
    assert max(network.compare((original,), (predictions,)).values()) < 1e-2


@pytest.mark.parametrize("version", ["yolov10n", "yolo26n"])
def test_versions_with_an_end_to_end_head_are_refused(version: str, tmp_path: Path) -> None:
    model = DetectionModel(f"{version}.yaml", verbose=False)  # type: ignore[no-untyped-call]
    with pytest.raises(WeightsRefused, match=r"its head is (end-to-end|v10Detect).*of YOLOv8, YOLO11 or YOLO12"):
        load("threat_detector", made(model, tmp_path))


def test_a_checkpoint_of_ultralytics_8_0_is_taken(threat: Path, tmp_path: Path) -> None:
    """Its modules had other paths, and it holds the loss that it was trained with."""
    model = torch.load(threat, weights_only=False)["model"]
    model.args = get_cfg()
    model.criterion = v8DetectionLoss(model)
    file = made(model, tmp_path)
    modules = [f"cultralytics.nn.modules.{name}\n".encode() for name in ("conv", "block", "head")]
    names = [(module, b"cultralytics.nn.modules\n") for module in modules]
    names += [
        (f"cultralytics.{name}\n".encode(), f"cultralytics.yolo.{name}\n".encode())
        for name in ("utils", "utils.loss", "utils.tal")
    ]
    renamed(file, names)
    assert load("threat_detector", file).labels == ("Gun", "explosion", "grenade", "knife")


@pytest.mark.parametrize("names", [["Gun", "explosion", "grenade", "knife"], ("Gun", "explosion", "grenade", "knife")])
def test_names_may_be_a_list(threat: Path, tmp_path: Path, names: Any) -> None:
    assert load("threat_detector", changed(threat, tmp_path, names=names)).labels == tuple(names)


def test_another_size_of_training_is_said(threat: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = torch.load(threat, weights_only=False)
    torch.save({**content, "train_args": {"imgsz": 1280}}, tmp_path / "best.pt")
    load("threat_detector", tmp_path / "best.pt")
    assert caplog.messages == ["best.pt was trained at 1280 pixels; it is served at 640."]


def test_a_detection_checkpoint_is_refused_for_pose(threat: Path) -> None:
    with pytest.raises(WeightsRefused, match=r"the task 'detect' and its head is Detect; .* 'pose' is needed"):
        load("pose_estimator", threat)


def test_a_pose_checkpoint_is_refused_for_threats(pose: Path) -> None:
    with pytest.raises(
        WeightsRefused, match="its head is Pose; a checkpoint of YOLOv8, YOLO11 or YOLO12 for the task 'detect'"
    ):
        load("threat_detector", pose)


def test_a_segmentation_checkpoint_is_refused(tmp_path: Path) -> None:
    from ultralytics.nn.tasks import SegmentationModel

    model = SegmentationModel("yolov8n-seg.yaml", verbose=False)  # type: ignore[no-untyped-call]
    torch.save({"model": model}, tmp_path / "seg.pt")
    with pytest.raises(WeightsRefused, match="its head is Segment"):
        load("threat_detector", tmp_path / "seg.pt")


def test_an_end_to_end_head_is_refused(tmp_path: Path) -> None:
    settings = {**yaml_model_load("yolov8n.yaml"), "end2end": True}  # type: ignore[no-untyped-call]
    model = DetectionModel(settings, verbose=False)  # type: ignore[no-untyped-call]
    torch.save({"model": model}, tmp_path / "26.pt")
    with pytest.raises(WeightsRefused, match="its head is end-to-end Detect"):
        load("threat_detector", tmp_path / "26.pt")


def test_keypoints_other_than_coco_s_are_refused(tmp_path: Path) -> None:
    model = PoseModel("yolov8n-pose.yaml", data_kpt_shape=(5, 3), verbose=False)  # type: ignore[no-untyped-call]
    torch.save({"model": model}, tmp_path / "five.pt")
    with pytest.raises(WeightsRefused, match=r"keypoints of shape \(5, 3\)"):
        load("pose_estimator", tmp_path / "five.pt")


def test_a_model_of_grey_images_is_refused(tmp_path: Path) -> None:
    model = DetectionModel("yolov8n.yaml", ch=1, verbose=False)  # type: ignore[no-untyped-call]
    with pytest.raises(WeightsRefused, match=r"images of 1 channels; 3 \(RGB\) are needed"):
        load("threat_detector", made(model, tmp_path))


@pytest.mark.parametrize(
    "names", [None, "Gun", ["Gun"], {0: "Gun"}, {0: "a", 1: "b", 2: "c", 3: ""}, {1: "a", 2: "b", 3: "c", 4: "d"}]
)
def test_a_class_without_a_name_is_refused(threat: Path, tmp_path: Path, names: dict[int, str]) -> None:
    with pytest.raises(WeightsRefused, match="4 classes, but its names are"):
        load("threat_detector", changed(threat, tmp_path, names=names))


def test_a_detector_of_everyday_objects_is_refused(tmp_path: Path) -> None:
    model = DetectionModel("yolov8n.yaml", nc=80, verbose=False)  # type: ignore[no-untyped-call]
    model.names = {0: "person", **{index: f"object {index}" for index in range(1, 79)}, 79: "toothbrush"}
    with pytest.raises(WeightsRefused, match="COCO's 80 everyday objects and no weapons"):
        load("threat_detector", made(model, tmp_path))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", id="text"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(100), id="image"),
        pytest.param(b"PK\x03\x04" + bytes(1000), id="broken archive"),
    ],
)
def test_a_foreign_file_is_refused_with_the_reason(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "best.pt").write_bytes(content)
    with pytest.raises(WeightsRefused, match=r"^best\.pt is not an ultralytics checkpoint: \S"):
        load("threat_detector", tmp_path / "best.pt")


def test_a_truncated_checkpoint_is_refused(threat: Path, tmp_path: Path) -> None:
    whole = threat.read_bytes()
    (tmp_path / "best.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsRefused, match=r"^best\.pt is not an ultralytics checkpoint: \S"):
        load("threat_detector", tmp_path / "best.pt")


def test_a_checkpoint_of_another_library_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"weight": torch.zeros(3)}}, tmp_path / "best.pt")
    with pytest.raises(WeightsRefused, match=r"is not an ultralytics checkpoint: it holds \{'state_dict': 'dict'\}"):
        load("threat_detector", tmp_path / "best.pt")


def test_a_network_alone_and_parameters_alone_are_refused_by_name(threat: Path, tmp_path: Path) -> None:
    model = torch.load(threat, weights_only=False)["model"]
    torch.save(model, tmp_path / "best.pt")
    with pytest.raises(WeightsRefused, match=r"it holds \{'model': 'Sequential'\}\. A mapping with the whole"):
        load("threat_detector", tmp_path / "best.pt")
    with pytest.raises(WeightsRefused, match="it holds parameters without the network that they belong to"):
        load("threat_detector", made(model.state_dict(), tmp_path))


def test_a_checkpoint_of_the_repository_yolov5_is_refused_by_name(threat: Path, tmp_path: Path) -> None:
    file = made(torch.load(threat, weights_only=False)["model"], tmp_path)
    renamed(file, [(b"cultralytics.nn.tasks\n", b"cmodels.yolo\n")])
    with pytest.raises(WeightsRefused, match=r"it names models\.yolo\.DetectionModel, as the files of .* yolov5"):
        load("threat_detector", file)


def test_a_checkpoint_that_would_run_code_is_refused_unrun(threat: Path, tmp_path: Path) -> None:
    mark = tmp_path / "was here"
    content = torch.load(threat, weights_only=False)
    torch.save({**content, "extra": Intruder(mark)}, tmp_path / "best.pt")
    with pytest.raises(WeightsRefused, match=r"it names pathlib\.Path, which is none of") as caught:
        load_yolo(tmp_path / "best.pt", "detect")
    assert not re.search(r"weights_only|safe_globals|yolo26|\x1b|\n|❌", str(caught.value))
    assert not mark.exists()
    torch.load(tmp_path / "best.pt", weights_only=False)  # the trap itself works
    assert mark.exists()


@pytest.mark.weights
def test_the_real_checkpoints_are_accepted(shared: Path) -> None:
    zoo = shared / "model-zoo"
    pose = load("pose_estimator", zoo / "yolov8n-pose" / "yolov8n-pose.pt")
    assert pose.labels == ("person",)
    for name in ("best.pt", "best_gun_tuned.pt"):
        threat = load("threat_detector", zoo / "threat-detection-yolov8n" / "weights" / name)
        assert threat.labels == ("Gun", "explosion", "grenade", "knife")


def test_the_stand_in_lies_where_its_loader_looks(pose: Path) -> None:
    from models.catalogue import CATALOGUE

    assert CATALOGUE["pose_estimator"].loaded_path(pose.parent) == pose
