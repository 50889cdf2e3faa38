from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any, Final

import pytest
import yaml

from models.catalogue import CATALOGUE
from settings import DEFAULT_FILE, ENVIRONMENT, load
from tests.serving.server import ROOT
from tools.image import NAME, default_tag

DEPLOY: Final = ROOT / "deploy"
FILES: Final = {"gpu": DEPLOY / "compose.yaml", "cpu": DEPLOY / "compose.cpu.yaml"}
# Fixed in the image, the file's own way of saying the same, the trial's, or fixed when the bento is built.
CONFIDENCES: Final = {f"ENRICHMENT_{model}_MIN_CONFIDENCE" for model in ("POSE", "THREAT", "PET")}
NOT_OFFERED: Final = {
    "HOST",
    "PORT",
    "TENSORRT_CACHE",
    "ENRICHMENT_GPU",
    "ENRICHMENT_LIGHT_PRELOAD_MODELS",
    "ENRICHMENT_ALLOW_UNTRAINED",
    "ENRICHMENT_PLACEMENT",
}
each_file = pytest.mark.parametrize("variant", FILES)


def service(variant: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILES[variant].read_text(encoding="utf-8"))["services"][NAME]
    return found


def variables(variant: str) -> dict[str, str]:
    found = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", FILES[variant].read_text(encoding="utf-8")))
    # Their defaults in the files are places that stand for none: a folder of the host, an empty stage, an empty file.
    return found | {"AI_MODELS_PATH": "", "ENRICHMENT_API_KEY_FILE": ""}


def example() -> dict[str, str]:
    lines = (DEPLOY / ".env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def filled(text: str) -> str:
    """A text with the example's values. As in Compose, an empty value gives the default, or nothing after `:+`."""
    text = re.sub(r"\$\{(\w+):\+([^}]*)\}", lambda match: match[2] if example()[match[1]] else "", text)
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda match: example()[match[1]] or match[2], text)


def test_the_example_has_every_variable_of_both_files_with_its_default() -> None:
    assert example() == variables("cpu") | variables("gpu")
    assert variables("cpu").items() <= variables("gpu").items()


@each_file
def test_what_it_passes_into_the_container_is_read_and_its_default_is_allowed(variant: str) -> None:
    environment = {name: filled(value) for name, value in service(variant)["environment"].items()}
    assert set(environment) <= {variable for variable, _ in ENVIRONMENT}
    settings = load(DEFAULT_FILE, environment)
    assert settings.preload == ()  # the seed's: each on its first request
    assert settings.import_at_start is (variant == "gpu")


@each_file
def test_the_container_may_do_nothing_that_it_does_not_need(variant: str) -> None:
    found = service(variant)
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "user", "network_mode", "pid", "ipc", "devices"} & set(found)
    written = {volume.split(":")[1] for volume in found["volumes"] if not volume.endswith(":ro")} | set(found["tmpfs"])
    assert written <= {"/cache/bentoml", "/cache/tensorrt", "/tmp"}
    users = re.findall(r"^USER .*$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert users[-1] == "USER bentoml"


@each_file
def test_its_health_is_asked_without_a_proxy_and_it_may_finish_its_work(variant: str) -> None:
    found = service(variant)
    assert "trust_env=False" in found["healthcheck"]["test"][-1]  # HTTP_PROXY may be set
    assert (found["stop_grace_period"], found["init"]) == ("40s", True)


def test_on_a_gpu_every_setting_that_has_a_variable_can_be_said() -> None:
    of_models = {variable for variable, place in ENVIRONMENT if place[0] == "models" and place[-1] != "assignment"}
    offered = {"POSE_USE_TENSORRT", "THREAT_USE_TENSORRT", *CONFIDENCES}
    assert offered <= of_models
    everything = {variable for variable, _ in ENVIRONMENT} - of_models | offered
    assert set(service("gpu")["environment"]) == everything - NOT_OFFERED


def test_the_weights_of_the_model_zoo_lie_where_the_import_step_looks() -> None:
    mounts = [filled(volume).split(":") for volume in service("gpu")["volumes"]]
    for spec in CATALOGUE.values():
        source = f"/export/ai_models/model-zoo/{spec.weights}"
        (target,) = (mount[1:] for mount in mounts if mount[0] == source)
        assert target == [f"/models/{spec.weights}", "ro"]
        assert f"{target[0]}/{spec.file}".rstrip("/") == spec.default_path
    assert ["enrichment-light-tensorrt-cache", str(load(DEFAULT_FILE, {}).tensorrt.cache)] in mounts


def test_on_a_cpu_it_differs_by_what_a_gpu_needs_and_by_nothing_else() -> None:
    gpu, cpu = service("gpu"), service("cpu")
    assert set(gpu) - set(cpu) == {"deploy"}
    for key in set(cpu) - {"image", "build", "environment", "volumes"}:
        assert gpu[key] == cpu[key], key
    assert cpu["environment"].items() <= gpu["environment"].items()
    assert set(cpu["volumes"]) <= {volume.split(" ")[0] for volume in gpu["volumes"]}
    assert {variant: filled(service(variant)["image"]) for variant in FILES} == {
        variant: f"{NAME}:{default_tag(variant)}" for variant in FILES
    }


@each_file
def test_it_can_be_built_from_the_checkout_alone(variant: str) -> None:
    build = service(variant)["build"]
    assert (DEPLOY / build["context"]).resolve() == ROOT
    assert (ROOT / build.get("dockerfile", "Dockerfile")).is_file()
    arguments = build.get("args", {})
    assert arguments == ({"VARIANT": "cpu", "IMPORT": "false"} if variant == "cpu" else {})
    declared = re.findall(r"^ARG (\w+)=(.*)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(arguments) <= {name for name, _ in declared}
    assert {"VARIANT": "gpu", "IMPORT": "true"}.items() <= dict(declared).items()


def test_on_a_cpu_the_image_is_built_with_the_weights_of_the_model_zoo_or_downloads_them() -> None:
    contexts = service("cpu")["build"]["additional_contexts"]
    assert set(contexts) == {"models"}  # a stage of the Dockerfile
    assert filled(contexts["models"]) == "docker-image://scratch"
    assert contexts["models"].startswith("${AI_MODELS_PATH:-")


@each_file
def test_compose_takes_it(variant: str) -> None:
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip("docker compose is not installed")
    command = ["docker", "compose", "-f", str(FILES[variant]), "config", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
