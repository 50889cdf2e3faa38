from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.catalogue import CATALOGUE
from models.errors import WeightsRefused
from models.weights import CONVERSION, fingerprint, gather

POSE, PET = CATALOGUE["pose_estimator"], CATALOGUE["pet_classifier"]


def pet_folder(folder: Path, labels: tuple[str, str] = ("cats", "dogs")) -> Path:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"parameters")
    (folder / "config.json").write_text(json.dumps({"id2label": dict(enumerate(labels))}))
    (folder / "preprocessor_config.json").write_text("{}")
    return folder


def test_version_of_a_file_is_its_checksum_and_the_conversion(tmp_path: Path) -> None:
    file = tmp_path / "any name.pt"
    file.write_bytes(b"parameters")
    identity = fingerprint(gather(POSE, file, "here"))
    assert identity.version == f"{identity.sha256[:12]}-{CONVERSION}"


def test_other_labels_make_another_version_of_the_same_parameters(tmp_path: Path) -> None:
    first = fingerprint(gather(PET, pet_folder(tmp_path / "first"), "here"))
    second = fingerprint(gather(PET, pet_folder(tmp_path / "second", labels=("dogs", "cats")), "here"))
    assert first.sha256 == second.sha256
    assert first.version != second.version


def test_files_that_no_library_reads_do_not_count(tmp_path: Path) -> None:
    folder = pet_folder(tmp_path / "pets")
    before = fingerprint(gather(PET, folder, "here"))
    (folder / "README.md").write_text("about cats")
    assert fingerprint(gather(PET, folder, "here")) == before


def test_a_folder_for_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsRefused, match="is a folder, but the weights of YOLOv8n-pose are one file"):
        gather(POSE, tmp_path, "here")


def test_a_file_for_a_folder_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"parameters")
    with pytest.raises(WeightsRefused, match="is a file, but ResNet-18 cats and dogs is loaded from a folder"):
        gather(PET, file, "here")


def test_a_folder_without_one_of_the_files_is_refused(tmp_path: Path) -> None:
    folder = pet_folder(tmp_path / "pets")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(WeightsRefused, match=r"holds no preprocessor_config\.json"):
        gather(PET, folder, "here")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "yolov8n-pose.pt"
    file.touch()
    with pytest.raises(WeightsRefused, match=r"yolov8n-pose\.pt is empty"):
        gather(POSE, file, "here")
