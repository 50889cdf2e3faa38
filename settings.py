"""Every setting, read once from configuration.yaml and the documented environment variables, checked and frozen."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, Final, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    NonNegativeFloat,
    ValidationError,
    field_validator,
    model_validator,
)

from models.catalogue import CATALOGUE, ModelName

SERVICE_NAME: Final = "ai-enrichment-light"
DEFAULT_FILE: Final = Path(__file__).with_name("configuration.yaml")

Assignment = Literal["light", "heavy"]
EngineChoice = Literal["auto", "openvino", "torch"]
Precision = Literal["auto", "f32", "bf16", "f16"]
Fraction = Field(ge=0.0, le=1.0)
# As browsers send it in `Origin`: scheme, host and port, without a slash at its end.
_ORIGIN: Final = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^\s/,]+")


class SettingsError(ValueError):
    """A setting is unknown or has a value that is not allowed; the text names each, its value and what is allowed."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Server(_Section):
    host: IPv4Address | IPv6Address
    port: int = Field(ge=1, le=65535)
    model_management: bool
    keep_alive_s: int = Field(ge=1)
    cors_origins: tuple[str, ...]

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return _items(value) if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f'{origin!r} is not "*" or an origin like https://cameras.example:8443, without a path'
                )
        return value


class Device(_Section):
    gpu: int = Field(ge=0)
    gpu_required: bool


class Residency(_Section):
    budget_mb: Literal["auto"] | NonNegativeFloat
    min_residency_s: float = Field(ge=0)


class TensorRt(_Section):
    cache: Path
    workspace_gib: float = Field(gt=0)
    build_timeout_s: float = Field(gt=0)


class Pyroscope(_Section):
    enabled: bool
    url: HttpUrl
    application_name: str = Field(min_length=1)


class Tracing(_Section):
    endpoint: HttpUrl | None
    sample_rate: float = Fraction


class Limits(_Section):
    max_image_mib: float = Field(gt=0)
    max_megapixels: float = Field(gt=0)
    max_jpeg_scan_megapixels: float = Field(gt=0)
    max_picture_mb: float = Field(gt=0)
    max_body_mib: float = Field(gt=0)
    request_timeout_s: float = Field(gt=0)
    decode_threads: int = Field(ge=1)

    @model_validator(mode="after")
    def _one_body_fits(self) -> Limits:
        if self.max_body_mib < self.max_image_mib * 2:
            raise ValueError("max_body_mib must be at least twice max_image_mib, or the largest bodies find no room")
        return self

    @property
    def max_image_bytes(self) -> int:
        return int(self.max_image_mib * 2**20)

    @property
    def max_picture_bytes(self) -> int:
        return int(self.max_picture_mb * 1_000_000)

    @property
    def max_body_bytes(self) -> int:
        return int(self.max_body_mib * 2**20)

    @property
    def max_pixels(self) -> int:
        return int(self.max_megapixels * 1_000_000)

    @property
    def max_jpeg_scan_pixels(self) -> int:
        return int(self.max_jpeg_scan_megapixels * 1_000_000)


class ModelSettings(_Section):
    assignment: Assignment
    max_batch_size: int = Field(ge=2, le=64)  # BentoML refuses a batchable method with less than two
    idle_ttl_s: float = Field(ge=0)


class DetectorSettings(ModelSettings):
    use_tensorrt: bool
    min_confidence: float = Fraction
    iou_threshold: float = Fraction


class PetSettings(ModelSettings):
    min_confidence: float = Fraction
    person_veto: float = Fraction


class DepthSettings(ModelSettings):
    input_size: int = Field(ge=14, le=1036, multiple_of=14)


class Models(_Section):
    pose_estimator: DetectorSettings
    threat_detector: DetectorSettings
    person_reid: ModelSettings
    pet_classifier: PetSettings
    depth_estimator: DepthSettings

    def __getitem__(self, name: ModelName) -> ModelSettings:
        settings: ModelSettings = getattr(self, name)
        return settings


class Settings(_Section):
    """The whole of `services.ai-enrichment-light.enrichment` in configuration.yaml, environment applied."""

    server: Server
    import_at_start: bool
    preload: tuple[ModelName, ...]
    placement: Literal["auto", "embedded", "shared", "isolated"]
    engine: EngineChoice
    precision: Precision
    int8: Literal["auto", "none"] | tuple[ModelName, ...]
    cpu_threads: int = Field(ge=0)
    device: Device
    residency: Residency
    tensorrt: TensorRt
    pyroscope: Pyroscope
    tracing: Tracing
    limits: Limits
    models: Models
    # Set by `make run` alone: the trial may serve untrained stand-ins for the weights that it can't have.
    allow_untrained: bool = False

    @field_validator("preload", "int8", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return _items(value) if isinstance(value, str) and value not in {"auto", "none"} else value

    def assigned(self) -> tuple[ModelName, ...]:
        """The models that this service is to serve, in the catalogue's order."""
        return tuple(name for name in CATALOGUE if self.models[name].assignment == "light")


def _items(text: str) -> list[str]:
    """The items of a comma-separated list."""
    return [item.strip() for item in text.split(",") if item.strip()]


# Where a complaint of pydantic names one end of what is allowed only.
_ALLOWED: Final[Mapping[tuple[str, ...], str]] = {
    ("server", "host", "ipv4"): "an IPv4 or IPv6 address",
    ("server", "port"): "a whole number from 1 to 65535",
}

# Variable → place in the tree. Where two variables set the same place, the later row wins.
ENVIRONMENT: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("HOST", ("server", "host")),
    ("PORT", ("server", "port")),
    ("ENRICHMENT_MODEL_MANAGEMENT", ("server", "model_management")),
    ("ENRICHMENT_CORS_ORIGINS", ("server", "cors_origins")),
    ("ENRICHMENT_PRELOAD_MODELS", ("preload",)),
    ("ENRICHMENT_LIGHT_PRELOAD_MODELS", ("preload",)),
    ("ENRICHMENT_IMPORT_AT_START", ("import_at_start",)),
    ("ENRICHMENT_ENGINE", ("engine",)),
    ("ENRICHMENT_PRECISION", ("precision",)),
    ("ENRICHMENT_INT8_MODELS", ("int8",)),
    ("ENRICHMENT_CPU_THREADS", ("cpu_threads",)),
    ("ENRICHMENT_PLACEMENT", ("placement",)),
    ("ENRICHMENT_ALLOW_UNTRAINED", ("allow_untrained",)),
    ("ENRICHMENT_GPU", ("device", "gpu")),
    ("ENRICHMENT_GPU_REQUIRED", ("device", "gpu_required")),
    ("ENRICHMENT_MEMORY_BUDGET_MB", ("residency", "budget_mb")),
    ("POSE_USE_TENSORRT", ("models", "pose_estimator", "use_tensorrt")),
    ("THREAT_USE_TENSORRT", ("models", "threat_detector", "use_tensorrt")),
    ("TENSORRT_CACHE", ("tensorrt", "cache")),
    ("PYROSCOPE_ENABLED", ("pyroscope", "enabled")),
    ("PYROSCOPE_URL", ("pyroscope", "url")),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", ("tracing", "endpoint")),
    ("ENRICHMENT_TRACING_SAMPLE_RATE", ("tracing", "sample_rate")),
    ("SERVICE_NAME", ("pyroscope", "application_name")),
    *((spec.assignment_variable, ("models", name, "assignment")) for name, spec in CATALOGUE.items()),
)


def load(file: Path, environment: Mapping[str, str]) -> Settings:
    """Read and check the settings.

    Raises SettingsError for an unreadable file, an unknown key, or a value that is not allowed; the text says whether
    the value came from the file or from which environment variable.
    """
    tree = _read(file)
    variables: dict[tuple[str, ...], str] = {}
    for variable, place in ENVIRONMENT:
        # Compose passes `X=` for a variable that is not set; only an empty preload list means something.
        if variable in environment and (environment[variable] or place == ("preload",)):
            _put(tree, place, environment[variable])
            variables[place] = variable
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise SettingsError("; ".join(_complaints(error, variables, file))) from None


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, from BENTOML_CONFIG's file where that is set, else from configuration.yaml here.

    Ends the process with the message where they are wrong: a traceback would bury it.
    """
    try:
        return load(Path(os.environ.get("BENTOML_CONFIG") or DEFAULT_FILE), os.environ)
    except SettingsError as error:
        sys.exit(f"{SERVICE_NAME} can't start: {error}")


def _read(file: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
        section = tree["services"][SERVICE_NAME]["enrichment"]
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{file}: is not YAML: {error}") from error
    except (KeyError, TypeError):
        raise SettingsError(f"{file}: has no section services.{SERVICE_NAME}.enrichment") from None
    if not isinstance(section, dict):
        raise SettingsError(f"{file}: services.{SERVICE_NAME}.enrichment must be a mapping")
    return section


def _put(tree: dict[str, Any], place: Sequence[str], value: str) -> None:
    for key in place[:-1]:
        tree = tree.setdefault(key, {})
    tree[place[-1]] = value


def _complaints(error: ValidationError, variables: Mapping[tuple[str, ...], str], file: Path) -> list[str]:
    complaints = []
    for problem in error.errors(include_url=False):
        place = tuple(str(part) for part in problem["loc"])
        # An entry of the preload list and a branch of a union stand one level below the place that was set.
        variable = variables.get(place) or variables.get(place[:-1])
        where = f"environment variable {variable}" if variable else f"{file.name}: {'.'.join(place)}"
        allowed = f" (allowed: {_ALLOWED[place]})" if place in _ALLOWED else ""
        complaints.append(f"{where} = {problem['input']!r}: {problem['msg']}{allowed}")
    return complaints
