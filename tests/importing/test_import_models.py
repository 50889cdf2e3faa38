from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import bentoml
import pytest

from importing.weights import Weights
from models.catalogue import CATALOGUE
from models.import_models import _name_unknown, main
from tests.importing.loaders.test_resnet import write

_RUN = "import sys; from models.import_models import main; code = main(); print('torch' in sys.modules); sys.exit(code)"


@dataclass(frozen=True)
class Trial:
    """A store and a zoo with a small pet classifier and, in the pose model's place, a text file."""

    home: Path
    zoo: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command line in a process of its own; its last line says whether that process has imported torch."""
        environment = {key: value for key, value in os.environ.items() if not key.endswith("_MODEL_PATH")}
        environment |= {"BENTOML_HOME": str(self.home), "AI_MODELS_PATH": str(self.zoo.parent)}
        command = [sys.executable, "-c", _RUN, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def versions(self) -> set[str]:
        return {f"{path.parent.name}:{path.name}" for path in (self.home / "models").glob("*/*") if path.is_dir()}

    def latest(self, name: str) -> str:
        return (self.home / "models" / name / "latest").read_text()


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    folder = tmp_path_factory.mktemp("trial")
    zoo, pose = folder / "models" / "model-zoo", CATALOGUE["pose_estimator"]
    write(zoo / CATALOGUE["pet_classifier"].weights, {0: "cats", 1: "dogs"})
    (zoo / pose.weights).mkdir()
    (zoo / pose.weights / pose.file).write_text("404: Not Found, and nothing else")
    (folder / "home").mkdir()
    return Trial(folder / "home", zoo)


@pytest.fixture(scope="module")
def first(trial: Trial) -> subprocess.CompletedProcess[str]:
    """Three models at once: one whose weights are there, one whose weights are refused, one that has none."""
    return trial.run("pet_classifier", "pose_estimator", "person_reid", "--untrained-standins")


def test_a_good_model_is_imported_beside_one_that_is_refused(
    trial: Trial, first: subprocess.CompletedProcess[str]
) -> None:
    assert first.returncode == 3
    assert "pet_classifier  imported" in first.stdout
    assert "pose_estimator  FAILED" in first.stdout
    assert {version.split(":")[0] for version in trial.versions()} == {"pet_classifier", "person_reid-untrained"}


def test_the_refusal_names_the_file_and_the_reason(trial: Trial, first: subprocess.CompletedProcess[str]) -> None:
    file = trial.zoo / "yolov8n-pose" / "yolov8n-pose.pt"
    assert f"pose_estimator was not imported: {file} is refused" in first.stderr
    assert "is not an ultralytics checkpoint: torch.save did not write it, as it begins with b'404: Not" in first.stderr
    assert "Traceback" not in first.stderr


def test_a_checkpoint_that_is_not_the_public_one_is_named_by_its_checksum_before_it_is_opened(
    trial: Trial, first: subprocess.CompletedProcess[str]
) -> None:
    said = first.stderr
    pose = trial.zoo / CATALOGUE["pose_estimator"].weights / CATALOGUE["pose_estimator"].file
    (line,) = [line for line in said.splitlines() if "is not the known public file" in line]  # a pet's is no pickle
    assert line.startswith(f"pose_estimator: {pose} is not the known")
    assert hashlib.sha256(pose.read_bytes()).hexdigest() in line
    assert said.index(line) < said.index("pose_estimator: converting")


def test_the_public_checkpoint_is_not_remarked_upon(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    file = tmp_path / "best.pt"
    file.write_bytes(b"whatever")
    spec = CATALOGUE["threat_detector"]
    known = replace(spec, sources=(replace(spec.sources[0], sha256=hashlib.sha256(b"whatever").hexdigest()),))
    for each, named in ((known, False), (spec, True)):
        caplog.clear()
        _name_unknown(Weights(each, (file,), str(file)))
        assert ("known public file" in caplog.text) is named


def test_a_stand_in_is_announced(first: subprocess.CompletedProcess[str]) -> None:
    assert "person_reid     UNTRAINED STAND-IN" in first.stdout
    assert "person_reid HAS NO TRAINED WEIGHTS" in first.stderr


def test_an_ordinary_import_does_not_take_a_stand_in_for_the_model(
    trial: Trial, first: subprocess.CompletedProcess[str]
) -> None:
    ordinary = trial.run("person_reid")
    assert ordinary.returncode == 1
    assert "no weights of OSNet x0.25 were found" in ordinary.stderr
    assert "person_reid  MISSING" in ordinary.stdout


def test_a_second_import_does_nothing_and_never_imports_torch(
    trial: Trial, first: subprocess.CompletedProcess[str]
) -> None:
    before = trial.versions()
    again = trial.run("pet_classifier", "person_reid", "--untrained-standins")
    assert again.returncode == 0, again.stderr
    assert "pet_classifier  already there" in again.stdout
    assert "person_reid     UNTRAINED STAND-IN" in again.stdout
    assert again.stdout.splitlines()[-1] == "False"
    assert trial.versions() == before


def test_a_damaged_latest_version_hides_no_older_one_whose_weights_are_gone(
    trial: Trial, first: subprocess.CompletedProcess[str], tmp_path: Path
) -> None:
    older = trial.latest("pet_classifier")
    shelf = trial.home / "models" / "pet_classifier"
    shutil.copytree(shelf / older, shelf / "newer")
    (shelf / "newer" / "graph.onnx").write_bytes(b"cut")
    (shelf / "latest").write_text("newer")
    gone = Trial(trial.home, tmp_path / "nowhere" / "model-zoo").run("pet_classifier")
    shutil.rmtree(shelf / "newer")
    assert gone.returncode == 0, gone.stderr
    assert "pet_classifier  already there" in gone.stdout
    assert "had an int8 graph, run the import again with --calibrate" in gone.stderr
    assert trial.latest("pet_classifier") == older


def test_other_labels_become_the_latest_and_the_older_ones_again_when_imported_again(
    trial: Trial, first: subprocess.CompletedProcess[str], tmp_path: Path
) -> None:
    older = trial.latest("pet_classifier")
    turned = write(tmp_path / "turned", {0: "dogs", 1: "cats"})
    other = trial.run("pet_classifier", "--source", str(turned))
    assert other.returncode == 0, other.stderr
    newer = trial.latest("pet_classifier")
    assert newer != older
    assert trial.versions() >= {f"pet_classifier:{older}", f"pet_classifier:{newer}"}
    back = trial.run("pet_classifier")
    assert "already there" in back.stdout
    assert trial.latest("pet_classifier") == older


def test_what_was_imported_stays_when_its_weights_are_gone(
    trial: Trial, first: subprocess.CompletedProcess[str], tmp_path: Path
) -> None:
    gone = Trial(trial.home, tmp_path / "nowhere" / "model-zoo").run("pet_classifier", "--untrained-standins")
    assert gone.returncode == 0, gone.stderr
    assert "pet_classifier  already there" in gone.stdout
    assert not (trial.home / "models" / "pet_classifier-untrained").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["pose"], "unknown model pose: choose from pose_estimator"),
        (["--source", "x.pt"], "--source goes with the name of exactly one model"),
        (["person_reid", "--source", "x.pt", "--untrained-standins"], "not allowed with argument --source"),
    ],
)
def test_a_command_line_that_means_nothing_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert reason in capsys.readouterr().err


def test_the_card_is_bentoml_s_metadata(trial: Trial, first: subprocess.CompletedProcess[str]) -> None:
    folder = trial.home / "models" / "pet_classifier" / trial.latest("pet_classifier")
    card = bentoml.Model.from_path(folder).info.metadata["card"]
    assert isinstance(card, dict)
    assert card["outputs"] == ["logits", "features"]
    assert card["labels"] == ["cat", "dog"]
