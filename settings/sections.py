"""The tree of settings with types and bounds. configuration.yaml explains each setting."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    NonNegativeFloat,
    PositiveInt,
    SecretStr,
    field_validator,
    model_validator,
)

from models.catalogue import CATALOGUE, ModelName
from tasks.depth_estimator import DepthSettings
from tasks.detection import DetectorSettings
from tasks.person_reid import ReidSettings
from tasks.pet_classifier import PetSettings
from tasks.task import TaskSettings

EngineChoice = Literal["auto", "openvino", "torch"]
Precision = Literal["auto", "f32", "bf16", "f16"]
Fraction = Field(ge=0.0, le=1.0)
# As in a browser's `Origin` header: scheme, host and port, without a trailing slash.
_ORIGIN: Final = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^\s/,]+")
_KEY: Final = re.compile(r"[!-+\--~]+")  # visible ASCII without the comma, as a header can carry it


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Server(_Section):
    """Where the service listens, who may call it, and which optional routes it has."""

    host: IPv4Address | IPv6Address
    port: int = Field(ge=1, le=65535)
    model_management: bool
    deepstack: bool
    keep_alive_s: int = Field(ge=1)
    cors_origins: tuple[str, ...]
    api_keys: tuple[SecretStr, ...]
    api_key_file: Path | None
    metrics_public: bool

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The API keys of both settings, read once. With none, everybody who reaches the port is answered."""
        of_file = _keys(self.api_key_file.read_text("utf-8")) if self.api_key_file else ()
        return (*(key.get_secret_value() for key in self.api_keys), *of_file)

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split_keys(cls, value: Any) -> Any:
        return _keys(value) if isinstance(value, str) else value

    @field_validator("api_keys")
    @classmethod
    def _check_keys(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        _check_sendable(key.get_secret_value() for key in value)
        return value

    @field_validator("api_key_file")
    @classmethod
    def _check_file(cls, value: Path | None) -> Path | None:
        try:
            if value is not None:
                _check_sendable(_keys(value.read_text("utf-8")))
        except OSError as error:
            raise ValueError(f"the file can't be read ({error.strerror})") from None
        except UnicodeDecodeError:
            raise ValueError("the file is not text") from None
        return value

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
    """The GPU to compute on."""

    gpu: int = Field(ge=0)
    gpu_required: bool


class Residency(_Section):
    """How much memory the models may take, in MB (10⁶ bytes), and how long they stay."""

    budget_mb: Literal["auto"] | NonNegativeFloat
    min_residency_s: float = Field(ge=0)


class TensorRt(_Section):
    """Where TensorRT engines are kept, and what a build may take."""

    cache: Path
    workspace_gib: float = Field(gt=0)
    build_timeout_s: float = Field(gt=0)


class Pyroscope(_Section):
    """Where continuous profiles go."""

    enabled: bool
    url: HttpUrl
    application_name: str = Field(min_length=1)


class Tracing(_Section):
    """Where traces go, and the share of requests that is traced."""

    endpoint: HttpUrl | None
    sample_rate: float = Fraction


class Limits(_Section):
    """Limits of a request, and of the memory of all requests together."""

    max_image_mib: float = Field(gt=0)
    max_megapixels: float = Field(gt=0)
    max_jpeg_scan_megapixels: float = Field(gt=0)
    max_picture_mb: float = Field(gt=0)
    max_body_mib: float = Field(gt=0)
    request_timeout_s: float = Field(gt=0)
    decode_threads: Literal["auto"] | PositiveInt

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


class Watchdog(_Section):
    """After how many seconds a process without a sign of life counts as hung."""

    silence_s: float = Field(gt=0)
    hung_s: float = Field(gt=0)


class Models(_Section):
    """The settings of each model. Their classes belong to the tasks."""

    pose_estimator: DetectorSettings
    threat_detector: DetectorSettings
    person_reid: ReidSettings
    pet_classifier: PetSettings
    depth_estimator: DepthSettings

    def __getitem__(self, name: ModelName) -> TaskSettings:
        settings: TaskSettings = getattr(self, name)
        return settings


def type_of_model(name: ModelName) -> type[TaskSettings]:
    """The class of a model's settings."""
    kind = Models.model_fields[name].annotation
    assert isinstance(kind, type)
    assert issubclass(kind, TaskSettings)
    return kind


class Settings(_Section):
    """The section `services.ai-enrichment-light.enrichment` of configuration.yaml, with the environment applied."""

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
    watchdog: Watchdog
    models: Models
    allow_untrained: bool = Field(False, description="only for a trial: untrained stand-ins answer for missing weights")

    @field_validator("preload", "int8", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return _items(value) if isinstance(value, str) and value not in {"auto", "none"} else value

    def assigned(self) -> tuple[ModelName, ...]:
        """Return the models that this service serves, in the catalogue's order."""
        return tuple(name for name in CATALOGUE if self.models[name].assignment == "light")


def _items(text: str) -> list[str]:
    """Return the items of a comma-separated list."""
    return [item.strip() for item in text.split(",") if item.strip()]


def _keys(text: str) -> tuple[str, ...]:
    """Return the keys of a text, separated by commas or lines. Raises ValueError if it has none."""
    keys = tuple(_items(text.replace("\n", ",")))
    if not keys:
        raise ValueError("there is no key in it")
    return keys


def _check_sendable(keys: Iterable[str]) -> None:
    """Raise ValueError for a key that no header can carry. The error does not quote the key."""
    for number, key in enumerate(keys, 1):
        if not _KEY.fullmatch(key):
            raise ValueError(f"key {number} may only have visible ASCII characters, no space and no comma")
