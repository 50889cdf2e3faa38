from __future__ import annotations

import subprocess
import sys
from typing import get_args

import pytest

from models.catalogue import CATALOGUE, ModelName, ModelSpec


def test_holds_the_five_models_by_their_names_in_the_documented_order() -> None:
    assert tuple(CATALOGUE) == get_args(ModelName)
    assert all(spec.name == name for name, spec in CATALOGUE.items())


def test_is_read_only() -> None:
    with pytest.raises(TypeError):
        CATALOGUE["pose_estimator"] = CATALOGUE["person_reid"]  # type: ignore[index]


@pytest.mark.parametrize("spec", CATALOGUE.values(), ids=lambda spec: spec.name)
def test_default_path_is_the_weights_folder_and_file_below_models(spec: ModelSpec) -> None:
    assert spec.default_path == "/".join(part for part in ("/models", spec.weights, spec.file) if part)


@pytest.mark.parametrize("spec", CATALOGUE.values(), ids=lambda spec: spec.name)
def test_pinned_sources_bring_every_file_with_a_whole_checksum(spec: ModelSpec) -> None:
    if spec.sources:
        wanted = {spec.file} if spec.file else set(spec.file_names)
        assert {source.path for source in spec.sources} == wanted
    for source in spec.sources:
        assert len(bytes.fromhex(source.sha256)) == 32
        assert source.size is None or source.size > 0
        assert source.url.startswith("https://")


def test_serving_imports_no_training_library_with_catalogue_and_store() -> None:
    code = (
        "import sys, models.catalogue, models.store;"
        "print([n for n in ('torch', 'ultralytics', 'transformers', 'torchreid', 'onnx') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
