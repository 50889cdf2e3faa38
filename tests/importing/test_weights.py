from __future__ import annotations

import json
from pathlib import Path

import pytest

from importing.errors import WeightsRefused
from importing.weights import fingerprint, gather
from models.catalogue import CATALOGUE

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
    assert identity.version == f"{identity.sha256[:12]}-{CATALOGUE['pose_estimator'].conversion}"


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


@pytest.mark.parametrize("other", ["pytorch_model.bin", "model.safetensors.index.json"])
def test_parameters_in_another_form_are_named_with_the_remedy(tmp_path: Path, other: str) -> None:
    folder = pet_folder(tmp_path / "pets")
    (folder / "model.safetensors").rename(folder / other)
    with pytest.raises(WeightsRefused, match=rf"holds no model\.safetensors, .*, but {other}: .*save_pretrained"):
        gather(PET, folder, "here")


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 6832633\n"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (LFS, "is a Git LFS pointer, .* `git lfs pull`"),
        (
            b"<!DOCTYPE html>\n<html class=''>",
            "is a web page, .*<!DOCTYPE html> <html class=''>.*download the file itself",
        ),
        (b"\xef\xbb\xbf  <html><head><title>Login\x1b[0m</title>", "is a web page"),
        (b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>AccessDenied</Code>", "is a web page.*AccessDenied"),
    ],
    ids=["pointer", "page", "login", "store"],
)
@pytest.mark.parametrize("name", ["yolov8n-pose.pt", "model.safetensors", "config.json", "preprocessor_config.json"])
def test_what_is_no_file_of_weights_at_all_is_called_by_its_name(
    tmp_path: Path, content: bytes, what: str, name: str
) -> None:
    folder = pet_folder(tmp_path / "pets")
    (folder / name).write_bytes(content)
    with pytest.raises(WeightsRefused, match=f"{name} {what}") as caught:
        gather(*((POSE, folder / name) if name.endswith(".pt") else (PET, folder)), "here")
    assert str(caught.value).isprintable()


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "yolov8n-pose.pt"
    file.touch()
    with pytest.raises(WeightsRefused, match=r"yolov8n-pose\.pt is empty"):
        gather(POSE, file, "here")
