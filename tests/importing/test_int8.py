"""int8 from the command line of the import step to the engine that serves it, on a small network and on real ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import openvino
import pytest
from PIL import Image

from engines.errors import EngineError
from importing import weights as weight_files
from importing.jobs import CalibrationJob
from importing.workshop import Workshop
from models import import_models, store
from models.card import Loss
from models.catalogue import CATALOGUE, ModelName
from models.import_models import main
from models.store import StoredModel
from runners.engine_choice import load
from settings import DEFAULT_FILE, Settings
from settings import load as load_settings
from tests.importing.loaders.test_resnet import write
from tests.models.cards import card

MIN_PICTURES: Final = 10  # importing.int8.quantize has it; NNCF, which that imports, changes the logging of its process
NAME: Final[ModelName] = "pet_classifier"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures" / "garden"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for index in range(MIN_PICTURES):
        pixels = random.integers(0, 256, (8, 10, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((300, 240)).save(folder / f"{index}.JPG", format="jpeg")
    return folder.parent


@pytest.fixture
def weights(tmp_path: Path) -> str:
    return str(write(tmp_path / "pets", {0: "cats", 1: "dogs"}))


def settings(**environment: str) -> Settings:
    return load_settings(DEFAULT_FILE, {"ENRICHMENT_ENGINE": "openvino", **environment})


def found() -> StoredModel:
    stored = store.find(NAME)
    assert stored is not None
    return stored


@pytest.mark.slow
def test_a_model_imported_with_pictures_has_an_int8_form_and_says_what_that_costs(
    home: Path,
    weights: str,
    pictures: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level("INFO")
    assert main([NAME, "--source", weights, "--calibrate", str(pictures)]) == 0
    stored = found()
    loss = stored.card.int8
    assert loss is not None
    assert loss.pictures == MIN_PICTURES
    assert set(loss.figures) == {"probability ±", "labels flipped", "is_household_pet flipped"}
    told = capfd.readouterr().out
    assert f"{NAME} in int8 against f32, {MIN_PICTURES} pictures: {loss}; " in told
    assert ("served in int8 only where" in told) is bool(loss.broken)

    named = load(stored, settings(ENRICHMENT_INT8_MODELS=NAME), None)
    exact = load(stored, settings(ENRICHMENT_INT8_MODELS="none", ENRICHMENT_PRECISION="f32"), None)
    assert (named.precision, exact.precision) == ("int8", "f32")
    batch = np.stack([np.asarray(Image.open(path).resize((224, 224))) for path in sorted(pictures.rglob("*.JPG"))[:5]])
    for one, other in zip(map(np.asarray, named.run(batch)), map(np.asarray, exact.run(batch)), strict=True):
        assert one.shape == other.shape
        assert not np.array_equal(one, other)  # it is another graph indeed
        assert np.abs(one - other).max() < 0.25 * np.abs(other).max()

    # An import without pictures, as at a container's start, leaves it; one with the same does nothing.
    for arguments in ([], ["--calibrate", str(pictures)]):
        assert main([NAME, "--source", weights, *arguments]) == 0
        assert found().tag == stored.tag
    assert caplog.text.count("calibrating") == 1
    assert len([path for path in stored.folder.parent.iterdir() if path.is_dir()]) == 2

    (pictures / "garden" / "0.JPG").unlink()
    (pictures / "garden" / "0.png").write_bytes(b"no picture")
    assert main([NAME, "--source", weights, "--calibrate", str(pictures)]) == 1
    assert "0.png is skipped" in capfd.readouterr().err
    assert f"int8 needs {MIN_PICTURES} pictures to be calibrated on; {MIN_PICTURES - 1} could be read" in caplog.text
    assert found().tag == stored.tag

    # A later version of this project converts anew; what was calibrated is then no longer served, and that is said.
    assert "int8 graph" not in caplog.text
    later = replace(CATALOGUE[NAME], conversion=CATALOGUE[NAME].conversion + 1)
    for module in (import_models, weight_files):
        monkeypatch.setattr(module, "CATALOGUE", {**CATALOGUE, NAME: later})
    assert main([NAME, "--source", weights]) == 0
    assert found().card.int8 is None
    assert caplog.text.count("its int8 graph was made from other weights or by an earlier version") == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--calibrate", "{}/nowhere"], "there is no picture (.jpg, .jpeg, .png, .webp) in"),
        (["--calibrate", "{}/pictures", "--untrained-standins"], "is of no use with --untrained-standins"),
    ],
)
def test_a_calibration_that_means_nothing_is_refused(
    home: Path,
    tmp_path: Path,
    pictures: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    reason: str,
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([argument.format(tmp_path) for argument in arguments])
    assert caught.value.code == 2
    assert reason in capsys.readouterr().err


BROKEN, WITHIN = Loss(20, {"labels flipped": 1}, ("labels flipped",)), Loss(20, {"labels flipped": 0}, ())


@pytest.mark.parametrize(
    ("loss", "environment", "expected"),
    [
        (None, {}, "f32"),
        (BROKEN, {}, "f32"),
        (WITHIN, {}, "int8"),
        (WITHIN, {"ENRICHMENT_INT8_MODELS": "none"}, "f32"),
        (WITHIN, {"ENRICHMENT_INT8_MODELS": "pose_estimator"}, "f32"),
        (WITHIN, {"ENRICHMENT_PRECISION": "bf16"}, "bf16"),  # who asks for a precision gets it
        (BROKEN, {"ENRICHMENT_INT8_MODELS": f"pose_estimator,{NAME}"}, "int8"),
        (BROKEN, {"ENRICHMENT_INT8_MODELS": NAME, "ENRICHMENT_PRECISION": "f32"}, "int8"),
    ],
)
def test_int8_is_served_where_it_is_asked_for_and_by_itself_within_bounds_alone(
    monkeypatch: pytest.MonkeyPatch, loss: Loss | None, environment: dict[str, str], expected: str
) -> None:
    assert _chosen(monkeypatch, loss, settings(**environment)) == expected


def _chosen(monkeypatch: pytest.MonkeyPatch, loss: Loss | None, chosen: Settings) -> str:
    """The precision in which a model with this loss is loaded; `auto` is f32."""

    class Engine:
        def __init__(self, graph: Path, precision: str, **_: Any) -> None:
            assert (graph.name == store.INT8) is (precision == "int8")
            self.precision = precision

        @staticmethod
        def auto_precision(_: str) -> str:
            return "f32"

    monkeypatch.setattr("engines.openvino.OpenVinoEngine", Engine)
    stored = StoredModel(f"{NAME}:1", Path("model"), replace(card(), int8=loss))
    return load(stored, chosen, None).precision


def test_int8_of_a_model_that_was_not_calibrated_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match=f"models.import_models {NAME} --calibrate"):
        _chosen(monkeypatch, None, settings(ENRICHMENT_INT8_MODELS=NAME))


def test_int8_on_torch_is_refused_and_never_quietly_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match="int8 is OpenVINO's alone"):
        _chosen(monkeypatch, WITHIN, settings(ENRICHMENT_INT8_MODELS=NAME, ENRICHMENT_ENGINE="torch"))


@pytest.mark.slow
@pytest.mark.weights
def test_real_people_are_found_in_int8(model_store: Path, shared: Path, tmp_path: Path) -> None:
    stored = store.find("pose_estimator")
    assert stored is not None
    files = [
        "bus.jpg",
        "street_crowd.jpg",
        "children_football.jpg",
        "pose_sitting.jpg",
        "pose_lying.jpg",
        "astronaut.png",
    ]
    night = tmp_path / "night.png"
    Image.new("RGB", (640, 480), (16, 16, 16)).save(night)
    pictures = tuple(shared / "images" / file for file in files) * 2 + (night,)
    with Workshop(tmp_path, 1) as workshop:
        loss = workshop.calibrate(CalibrationJob(stored, pictures, tmp_path)).result()
    assert loss.figures["people"] >= 10
    assert 0.95 < loss.figures["OKS mean"] < 1
    assert loss.figures["people lost or added"] <= 4
    # A picture's values are int8's steps: none is rounded or clipped, however dark the calibration's pictures are.
    operations = openvino.Core().read_model(tmp_path / store.INT8).get_ordered_ops()
    first = next(each for each in operations if each.get_type_name() == "FakeQuantize")
    assert [end.get_node().data.item() for end in first.input_values()[1:]] == [0, 255, 0, 255]
    assert first.get_attributes()["levels"] == 256
