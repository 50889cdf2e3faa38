from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from importing.download import Downloader
from importing.errors import ImportFailure, WeightsMissing, WeightsRefused
from importing.sources import given, locate
from models.catalogue import CATALOGUE, ModelSpec, Source
from models.store import save
from tests.importing.hub import serving
from tests.importing.test_weights import pet_folder
from tests.models.cards import card, files

CONTENT = b"public weights"


@pytest.fixture
def spec(home: Path, tmp_path: Path) -> ModelSpec:
    """The re-id model with a default path of this test's own."""
    return replace(CATALOGUE["person_reid"], default_path=str(tmp_path / "default.pth"), sources=())


def pinned(spec: ModelSpec, url: str, sha256: str | None = None) -> ModelSpec:
    checksum = sha256 or hashlib.sha256(CONTENT).hexdigest()
    return replace(spec, sources=(Source(url, checksum, len(CONTENT), spec.file),))


def put(path: Path, content: bytes = b"weights") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_the_variable_comes_before_everything_else(
    spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "default.pth")
    put(tmp_path / "zoo" / "model-zoo" / spec.weights / spec.file)
    monkeypatch.setenv("AI_MODELS_PATH", str(tmp_path / "zoo"))
    mine = put(tmp_path / "mine.pth")
    monkeypatch.setenv(spec.path_variable, str(mine))
    assert locate(spec, None, Downloader()).files == (mine,)


def test_the_variable_s_default_comes_before_the_zoo(
    spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = put(tmp_path / "default.pth")
    put(tmp_path / "zoo" / "model-zoo" / spec.weights / spec.file)
    monkeypatch.setenv("AI_MODELS_PATH", str(tmp_path / "zoo"))
    assert locate(spec, None, Downloader()).origin == str(default)


def test_the_zoo_comes_before_the_download(spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_zoo = put(tmp_path / "zoo" / "model-zoo" / spec.weights / spec.file)
    monkeypatch.setenv("AI_MODELS_PATH", str(tmp_path / "zoo"))
    with serving({"/w": CONTENT}) as hub:
        assert locate(pinned(spec, f"{hub.url}/w"), None, Downloader()).files == (in_zoo,)
        assert hub.asked == []


def test_the_store_s_own_copy_comes_before_the_download(home: Path, tmp_path: Path) -> None:
    made = files(tmp_path / "made")
    for name in ("config.json", "preprocessor_config.json"):
        (made / "weights" / name).write_text("{}")
    stored = save(card(), "aaa-1", made)
    found = locate(CATALOGUE["pet_classifier"], stored, Downloader())
    assert found.files[0] == stored.weights_folder / "model.safetensors"
    assert found.origin == "a test"


def test_what_is_nowhere_else_is_downloaded_and_kept(spec: ModelSpec, home: Path) -> None:
    with serving({"/w": CONTENT}) as hub:
        found = locate(pinned(spec, f"{hub.url}/w"), None, Downloader())
        assert found.origin == f"{hub.url}/w"
    assert found.files[0].read_bytes() == CONTENT
    assert found.files[0].is_relative_to(home)
    # The server is gone: the second time the file is taken from where it was kept.
    assert locate(pinned(spec, found.origin), None, Downloader()).files == found.files


def test_a_variable_that_points_nowhere_is_an_error_that_names_it(
    spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "default.pth")
    monkeypatch.setenv("REID_MODEL_PATH", str(tmp_path / "typo.pth"))
    with pytest.raises(ImportFailure, match=r"REID_MODEL_PATH=.*typo\.pth does not exist") as caught:
        locate(spec, None, Downloader())
    assert not isinstance(caught.value, WeightsMissing)  # else a stand-in would take its place


def test_where_nothing_is_found_every_place_and_the_remedy_are_listed(spec: ModelSpec, tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing) as caught:
        locate(pinned(spec, "http://127.0.0.1:9/w"), None, Downloader())
    message = str(caught.value)
    for part in (
        f"{tmp_path / 'default.pth'} (default of REID_MODEL_PATH)",
        f"{tmp_path / 'nothing'}/model-zoo/osnet-x0-25/osnet_x0_25.pth (AI_MODELS_PATH)",
        "127.0.0.1 cannot be reached",
        spec.homepage,
        "python -m models.import_models person_reid --source",
    ):
        assert part in message


def test_a_folder_in_a_file_s_place_is_refused_instead_of_passed_over(spec: ModelSpec, tmp_path: Path) -> None:
    put(tmp_path / "default.pth" / "osnet.pth")
    with pytest.raises(WeightsRefused, match="is a folder"):
        locate(spec, None, Downloader())


def test_an_empty_folder_as_docker_makes_it_where_there_is_nothing_to_mount_is_passed_over(
    spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "default.pth").mkdir()
    in_zoo = put(tmp_path / "zoo" / "model-zoo" / spec.weights / spec.file)
    monkeypatch.setenv("AI_MODELS_PATH", str(tmp_path / "zoo"))
    assert locate(spec, None, Downloader()).files == (in_zoo,)
    monkeypatch.setenv("REID_MODEL_PATH", str(tmp_path / "default.pth"))  # named by the operator it is a mistake
    with pytest.raises(ImportFailure, match=r"REID_MODEL_PATH=.* is an empty folder"):
        locate(spec, None, Downloader())


def test_a_given_path_that_does_not_exist_is_named(spec: ModelSpec, tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match=r"--source nowhere\.pth does not exist"):
        given(spec, "nowhere.pth", Downloader(), tmp_path / "scratch")


def test_a_given_url_is_that_of_the_file(spec: ModelSpec, tmp_path: Path) -> None:
    with serving({"/any/name.pth": CONTENT}) as hub:
        found = given(spec, f"{hub.url}/any/name.pth", Downloader(), tmp_path / "scratch")
    assert found.files[0].read_bytes() == CONTENT
    assert found.origin == f"{hub.url}/any/name.pth"


def test_a_given_url_of_a_transformers_model_is_that_of_the_folder(home: Path, tmp_path: Path) -> None:
    folder = pet_folder(tmp_path / "pets")
    content = {f"/pets/main/{file.name}": file.read_bytes() for file in folder.iterdir()}
    with serving(content) as hub:
        found = given(CATALOGUE["pet_classifier"], f"{hub.url}/pets/main/", Downloader(), tmp_path / "scratch")
    assert [file.read_bytes() for file in found.files] == [(folder / file.name).read_bytes() for file in found.files]
