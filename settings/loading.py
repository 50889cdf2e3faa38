"""Reads the settings from configuration.yaml and the environment, and reports errors in sentences."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from models.catalogue import CATALOGUE
from settings.sections import Settings, type_of_model

SERVICE_NAME: Final = "ai-enrichment-light"
DEFAULT_FILE: Final = Path(__file__).parents[1] / "configuration.yaml"


class SettingsError(ValueError):
    """Settings are unknown or have invalid values. The text names each, its value and what is allowed."""


# Settings for which pydantic's message does not say all that is allowed.
_ALLOWED: Final[Mapping[tuple[str, ...], str]] = {
    ("server", "host", "ipv4"): "an IPv4 or IPv6 address",
    ("server", "port"): "a whole number from 1 to 65535",
}


def _of_models() -> Iterator[tuple[str, tuple[str, ...]]]:
    """ENRICHMENT_<MODEL>_<SETTING> for each setting of each model, such as ENRICHMENT_POSE_MIN_CONFIDENCE."""
    for name, spec in CATALOGUE.items():
        for setting in type_of_model(name).model_fields:
            if setting != "assignment":  # its variable has an older name
                yield f"ENRICHMENT_{spec.short_name}_{setting}".upper(), ("models", name, setting)


# Variable → place in the tree. If two variables set one place, the later row wins.
ENVIRONMENT: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("HOST", ("server", "host")),
    ("PORT", ("server", "port")),
    ("ENRICHMENT_MODEL_MANAGEMENT", ("server", "model_management")),
    ("ENRICHMENT_DEEPSTACK", ("server", "deepstack")),
    ("ENRICHMENT_CORS_ORIGINS", ("server", "cors_origins")),
    ("ENRICHMENT_API_KEY", ("server", "api_keys")),
    ("ENRICHMENT_API_KEY_FILE", ("server", "api_key_file")),
    ("ENRICHMENT_METRICS_PUBLIC", ("server", "metrics_public")),
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
    *_of_models(),
)


def load(file: Path, environment: Mapping[str, str]) -> Settings:
    """Read and check the settings. `file` may hold a part of the keys: they override those of DEFAULT_FILE.

    Raises SettingsError for an unreadable file, an unknown key or an invalid value. The text names the value's source:
    the file or the environment variable.
    """
    tree = _read(DEFAULT_FILE)
    if file != DEFAULT_FILE:
        _lay(_read(file), tree)
    variables: dict[tuple[str, ...], str] = {}
    for variable, place in ENVIRONMENT:
        # Compose passes `X=` for an unset variable. Only for the preload list an empty text has a meaning.
        if variable in environment and (environment[variable] or place == ("preload",)):
            _put(tree, place, environment[variable])
            variables[place] = variable
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise SettingsError("; ".join(_messages(error, variables, file))) from None


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Return the settings of this process, from the file in BENTOML_CONFIG or else from DEFAULT_FILE.

    Wrong settings end the process with a message, as a traceback would bury it.
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
    except yaml.MarkedYAMLError as error:  # its text quotes the file, which may hold API keys
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise SettingsError(f"{file}: is not YAML: line {line}: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise SettingsError(f"{file}: is not YAML: it is not readable text") from None
    except (KeyError, TypeError):
        raise SettingsError(f"{file}: has no section services.{SERVICE_NAME}.enrichment") from None
    if not isinstance(section, dict):
        raise SettingsError(f"{file}: services.{SERVICE_NAME}.enrichment must be a mapping")
    return section


def _lay(over: Mapping[str, Any], tree: dict[str, Any]) -> None:
    """Put the values of one mapping into another, section by section. A list takes the place of the other's."""
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict):
            _lay(value, tree[key])
        else:
            tree[key] = value


def _put(tree: dict[str, Any], place: Sequence[str], value: str) -> None:
    for key in place[:-1]:
        tree = tree.setdefault(key, {})
    tree[place[-1]] = value


def _messages(error: ValidationError, variables: Mapping[tuple[str, ...], str], file: Path) -> list[str]:
    messages = []
    for problem in error.errors(include_url=False):
        place = tuple(str(part) for part in problem["loc"])
        # pydantic reports an item of a list and a branch of a union below the place that was set.
        upwards = (variables.get(place[:length]) for length in range(len(place), 0, -1))
        variable = next(filter(None, upwards), None)
        where = f"environment variable {variable}" if variable else f"{file.name}: {'.'.join(place)}"
        allowed = f" (allowed: {_ALLOWED[place]})" if place in _ALLOWED else ""
        shown = "(not shown)" if _is_secret(place) else repr(problem["input"])
        messages.append(f"{where} = {shown}: {problem['msg']}{allowed}")
    return messages


def _is_secret(place: Sequence[str]) -> bool:
    """Whether a place holds API keys, also by a misspelt name, or is a section with such a place in it."""
    return place[0] == "server" and (len(place) == 1 or "key" in place[1].lower())
