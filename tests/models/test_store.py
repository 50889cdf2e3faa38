from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import bentoml
import pytest
import yaml

from models import store
from models.card import Loss, ModelCard
from models.store import StoreError, find, save
from tests.models.cards import card, files


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_finds_nothing_in_an_empty_store(home: Path) -> None:
    assert find("pet_classifier") is None


def test_gives_back_the_card_and_the_files_that_were_saved(home: Path, tmp_path: Path) -> None:
    save(card(), "aaa-1", files(tmp_path / "made"))
    found = find("pet_classifier")
    assert found is not None
    assert found.card == card()
    assert found.tag == "pet_classifier:aaa-1"
    assert found.graph.read_text() == "graph graph.onnx"
    assert found.program.read_text() == "graph graph.pt2"
    assert [file.name for file in found.weights_folder.iterdir()] == ["model.safetensors"]
    assert found.label_for_health == "pet-classifier@aaaaaaaaaaaa"


def test_card_survives_bentoml_s_own_export_and_import(home: Path, tmp_path: Path) -> None:
    save(card(), "aaa-1", files(tmp_path / "made"))
    exported = bentoml.models.export_model("pet_classifier:latest", str(tmp_path / "out.bentomodel"))
    bentoml.models.delete("pet_classifier:aaa-1")
    assert find("pet_classifier") is None
    bentoml.models.import_model(exported)
    found = find("pet_classifier")
    assert found is not None
    assert found.card == card()


def test_the_version_saved_last_is_the_one_found(home: Path, tmp_path: Path) -> None:
    save(card(), "aaa-1", files(tmp_path / "first"))
    save(card(sha256="b" * 64), "bbb-1", files(tmp_path / "second"))
    found = find("pet_classifier")
    assert found is not None
    assert found.card.sha256 == "b" * 64


def test_selecting_an_older_version_makes_find_and_bentoml_return_it(home: Path, tmp_path: Path) -> None:
    save(card(), "aaa-1", files(tmp_path / "first"))
    save(card(sha256="b" * 64), "bbb-1", files(tmp_path / "second"))
    store.select("pet_classifier", "aaa-1")
    found = find("pet_classifier")
    assert found is not None
    assert found.tag == "pet_classifier:aaa-1"
    assert str(bentoml.models.get("pet_classifier:latest").tag) == "pet_classifier:aaa-1"


def test_a_version_is_not_found_by_its_beginning(home: Path, tmp_path: Path) -> None:
    save(card(), "aaa-12", files(tmp_path / "made"))
    assert store.find_version("pet_classifier", "aaa-1") is None


def test_a_stand_in_is_found_only_where_it_is_asked_for(home: Path, tmp_path: Path) -> None:
    save(card(untrained=True), "seed0-1", files(tmp_path / "made"))
    assert find("pet_classifier") is None
    found = find("pet_classifier", untrained=True)
    assert found is not None
    assert found.label_for_health == "untrained"


def test_a_stand_in_under_a_real_model_s_name_is_refused(home: Path, tmp_path: Path) -> None:
    save(card(untrained=True), "seed0-1", files(tmp_path / "made"))
    shelf = home / "models" / "pet_classifier-untrained"
    shelf.rename(home / "models" / "pet_classifier")
    with pytest.raises(StoreError, match="untrained=True"):
        find("pet_classifier")


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda entry: (entry / "graph.onnx").write_text("cut"), id="truncated graph"),
        pytest.param(lambda entry: (entry / "graph.pt2").unlink(), id="missing program"),
        pytest.param(lambda entry: (entry / "model.yaml").write_text("{"), id="broken yaml"),
        pytest.param(lambda entry: (entry / "model.yaml").write_text("just text"), id="yaml of another kind"),
        pytest.param(lambda entry: (entry / "model.yaml").unlink(), id="no yaml"),
        pytest.param(lambda entry: _edit(entry, "conversion: 1\n", ""), id="card without an entry"),
        pytest.param(lambda entry: _edit(entry, "name: pet_classifier\n    w", "name: else\n    w"), id="unknown name"),
    ],
)
def test_a_damaged_entry_is_an_error_that_names_it_and_the_remedy(
    home: Path, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    save(card(), "aaa-1", files(tmp_path / "made"))
    damage(home / "models" / "pet_classifier" / "aaa-1")
    with pytest.raises(StoreError, match=r"pet_classifier.*bentoml models delete.*import_models pet_classifier"):
        find("pet_classifier")


def _edit(entry: Path, old: str, new: str) -> None:
    text = (entry / "model.yaml").read_text()
    assert old in text
    (entry / "model.yaml").write_text(text.replace(old, new))


def test_saving_over_a_damaged_entry_mends_it(home: Path, tmp_path: Path) -> None:
    save(card(), "aaa-1", files(tmp_path / "first"))
    (home / "models" / "pet_classifier" / "aaa-1" / "model.yaml").unlink()
    save(card(), "aaa-1", files(tmp_path / "second"))
    assert find("pet_classifier") is not None


def test_a_new_version_is_saved_beside_a_damaged_one(home: Path, tmp_path: Path) -> None:
    save(card(), "aaa-1", files(tmp_path / "first"))
    (home / "models" / "pet_classifier" / "aaa-1" / "model.yaml").unlink()
    save(card(sha256="b" * 64), "bbb-1", files(tmp_path / "second"))
    found = find("pet_classifier")
    assert found is not None
    assert found.tag == "pet_classifier:bbb-1"


@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()], ids=["disk full", "interrupted"])
@pytest.mark.parametrize("stored", ["aaa-1", "bbb-1", None], ids=["another version", "the same version", "empty"])
def test_the_store_is_as_before_when_saving_fails(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, stored: str | None
) -> None:
    if stored is not None:
        save(card(), stored, files(tmp_path / "first"))
    before = tree(home / "models")
    move, failures = shutil.move, [error]

    def fail_in_the_store(source: Path, target: Path) -> Any:
        moved = move(source, target)
        if Path(target).is_relative_to(home) and failures:
            raise failures.pop()
        return moved

    monkeypatch.setattr(shutil, "move", fail_in_the_store)
    with pytest.raises(type(error)):
        save(card(sha256="b" * 64), "bbb-1", files(tmp_path / "second"))
    assert tree(home / "models") == before


def test_card_without_fixed_size_keeps_its_none(home: Path) -> None:
    assert ModelCard.from_metadata(card().to_metadata()).input["height"] is None


def test_what_int8_costs_survives_the_store_and_an_image_that_lost_its_files_is_refused(
    home: Path, tmp_path: Path
) -> None:
    loss = Loss(12, {"probability ±": 0.25, "labels flipped": 2}, ("labels flipped",))
    folder = files(tmp_path / "new")
    for name in ("graph-int8.xml", "graph-int8.bin"):
        (folder / name).write_text(name)
    stored = store.save(replace(card(), int8=loss), "a-1-int8-b", folder)
    assert stored.card.int8 == loss
    assert stored.int8_graph.read_text() == "graph-int8.xml"
    assert (stored.version, stored.converted_version) == ("a-1-int8-b", "a-1")
    assert store.calibrated_version(stored, "c") == "a-1-int8-c"
    packed = home / "models"
    assert store.find_version("pet_classifier", "a-1-int8-b", packed=packed) is not None
    (stored.folder / "graph-int8.bin").unlink()
    with pytest.raises(StoreError, match=r"graph-int8\.bin is missing"):
        store.find_version("pet_classifier", "a-1-int8-b", packed=packed)


def test_an_engine_s_cache_holds_the_version_that_is_loaded_alone(home: Path, tmp_path: Path) -> None:
    first = save(card(), "a-1", files(tmp_path / "first"))
    folder = store.cache_folder("openvino", first)
    assert folder is not None
    (folder / "compiled").write_text("a")
    assert store.cache_folder("openvino", first) == folder
    assert (folder / "compiled").is_file()
    second = save(card(), "b-1", files(tmp_path / "second"))
    assert store.cache_folder("openvino", second) == folder.with_name("b-1")
    assert not folder.exists()


def test_where_an_engine_can_keep_nothing_that_is_said_and_no_error(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored = save(card(), "a-1", files(tmp_path / "new"))
    (home / "cache").write_text("in the way")
    assert store.cache_folder("openvino", stored) is None
    assert "openvino caches nothing of pet_classifier:a-1" in caplog.text


def test_the_files_of_a_version_are_verified_by_their_bytes(home: Path, tmp_path: Path) -> None:
    stored = save(card(), "aaa-1", files(tmp_path / "made"))
    store.verify(stored, stored.graph, stored.program, stored.checkpoint / "model.safetensors")
    content = stored.graph.read_bytes()
    stored.graph.write_bytes(content[::-1])
    assert find("pet_classifier") is not None  # which looks at lengths alone
    with pytest.raises(StoreError, match=r"graph\.onnx is not the file that was imported.*import_models pet_class"):
        store.verify(stored, stored.program, stored.graph)
    stored.graph.write_bytes(content[:-1])
    with pytest.raises(StoreError, match=r"graph\.onnx is missing or not \d+ bytes long"):
        store.verify(stored, stored.graph)
    stored.graph.unlink()
    with pytest.raises(StoreError, match=r"graph\.onnx is missing"):
        store.verify(stored, stored.graph)
    stored.graph.write_bytes(content)
    store.verify(stored, stored.graph)


def test_a_file_that_cannot_be_read_is_named(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = save(card(), "aaa-1", files(tmp_path / "made"))

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error", str(stored.graph))

    monkeypatch.setattr("hashlib.file_digest", fail)
    with pytest.raises(StoreError, match=r"pet_classifier:aaa-1 .* \(\[Errno 5\] Input/output error: .*graph\.onnx"):
        store.verify(stored, stored.graph)


def test_what_an_earlier_import_step_stored_without_checksums_is_served(home: Path, tmp_path: Path) -> None:
    save(card(), "aaa-1", files(tmp_path / "made"))
    place = home / "models" / "pet_classifier" / "aaa-1" / "model.yaml"
    content = yaml.safe_load(place.read_text())
    del content["metadata"]["checksums"]
    place.write_text(yaml.safe_dump(content))
    stored = find("pet_classifier")
    assert stored is not None
    store.verify(stored, stored.graph)


def test_a_folder_for_files_under_way_is_emptied_of_what_a_killed_import_left(home: Path) -> None:
    (home / "importing").mkdir()
    (home / "importing" / "half").write_text("half a graph")
    with store.exclusive() as scratch:
        assert scratch == home / "importing"
        assert list(scratch.iterdir()) == []
        (scratch / "graph").write_text("a graph")
    assert not scratch.exists()
