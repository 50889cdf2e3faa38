"""docs/reference of settings, configuration, metrics and errors, from the code that knows them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml
from prometheus_client import Counter, Gauge, Histogram

import api.metrics
from api.errors import STATUS, ApiError
from api.openapi import MEANINGS
from models.catalogue import CATALOGUE
from settings import DEFAULT_FILE, ENVIRONMENT, SERVICE_NAME, Settings
from tools.docs.text import NOTE, code, kind, resolved, table

Place = tuple[str, ...]
Row = tuple[str, ...]

# Variables that are no settings: they are read before or beside configuration.yaml.
_BESIDE: Final = (
    ("BENTOML_CONFIG", "–", "A configuration file that is laid over [configuration.yaml](../../configuration.yaml)."),
    (
        "BENTOML_HOME",
        "`~/bentoml`",
        "BentoML's model store. Several servers of one machine may share it. `cache/` in it may be deleted.",
    ),
    ("AI_MODELS_PATH", "`/export/ai_models`", "The folder with `model-zoo/`, for the import step."),
)
_VARIABLES: Final = "|".join(variable for variable, _ in ENVIRONMENT)
# What a comment says of its variables, and the values that the column `allowed` has anyway.
_SAID: Final = re.compile(rf"^(?:{_VARIABLES})(?: \(comma-separated\))?(?:: |$)(?:auto \| [^.]*\. )?")


def settings() -> str:
    """Return the page of the environment variables."""
    comments, defaults = _comments(), _defaults()
    general: list[Row] = []
    of_models: list[Row] = []
    for variable, place in ENVIRONMENT:
        row = (code(variable), _default(defaults, place), _kind(place), _meaning(comments, place))
        (of_models if place[0] == "models" else general).append(row)
    head = ("variable", "default", "allowed", "meaning")
    beside: list[Row] = [(code(name), *rest) for name, *rest in _BESIDE]
    beside += [
        (code(spec.path_variable), code(spec.default_path), f"Weights of {spec.title}.") for spec in CATALOGUE.values()
    ]
    return "\n".join(
        [
            "# Environment variables\n",
            NOTE,
            "A variable wins over [configuration.yaml](configuration.md). An empty one counts as not set.",
            "A wrong value stops the start. The message names the variable, the value and what is allowed.\n",
            "## The service\n",
            table(head, general),
            "## Each model\n",
            table(head, of_models),
            "## Beside the settings\n",
            table(("variable", "default", "meaning"), beside),
        ]
    )


def configuration() -> str:
    """Return the page of configuration.yaml's keys."""
    comments, defaults = _comments(), _defaults()
    variables: dict[Place, list[str]] = {}
    for variable, place in ENVIRONMENT:
        variables.setdefault(place, []).append(code(variable))
    rows = []
    for place in _leaves(defaults):
        named = ", ".join(variables.get(place, ()))
        rows.append(
            (code(".".join(place)), _default(defaults, place), named or f"{_kind(place)}: {_meaning(comments, place)}")
        )
    return "\n".join(
        [
            "# configuration.yaml\n",
            NOTE,
            "[configuration.yaml](../../configuration.yaml) holds every setting with its reason.",
            f"The settings stand below `services.{SERVICE_NAME}.enrichment`.",
            "`BENTOML_CONFIG` names a file of your own. It may hold a part of the keys.",
            "It is laid over the delivered file.",
            "[Environment variables](settings.md) explain their keys and win over both files.\n",
            table(("key", "default", "variable, or what the key means"), rows),
        ]
    )


def metrics() -> str:
    """Return the page of the service's own metrics."""
    rows = []
    for collector in vars(api.metrics).values():
        if isinstance(collector, Counter | Gauge | Histogram):
            (described,) = collector.describe()
            name = described.name + ("_total" if described.type == "counter" else "")
            labels = ", ".join(map(code, collector._labelnames))
            rows.append((code(name), described.type, labels or "–", described.documentation))
    return "\n".join(
        [
            "# Metrics\n",
            NOTE,
            "`GET /metrics` answers in Prometheus' text format. It holds BentoML's own metrics and these.",
            "`endpoint` is the route and `status` is the HTTP status. Unknown paths share the label `unmatched`.",
            "[Monitoring](../operate/monitoring.md) has alerts and a dashboard.\n",
            table(("metric", "type", "labels", "meaning"), rows),
        ]
    )


def errors() -> str:
    """Return the page of the error codes."""
    rows = []
    for error, status in STATUS.items():
        after = ApiError(error, "").retry_after_s
        again = f"yes, after {after} s" if after else "yes" if status >= 500 else "no"
        rows.append((str(status), code(error), MEANINGS[error], again))
    return "\n".join(
        [
            "# Errors\n",
            NOTE,
            "Every error has one shape. `details` is there if fields of the request are wrong.\n",
            "```json",
            '{"error": {"code": "invalid_request", "request_id": "4bf92f35",',
            ' "message": "bbox: must have x2 > x1 and y2 > y1",',
            ' "details": [{"field": "bbox", "message": "must have x2 > x1 and y2 > y1"}]}}',
            "```\n",
            "The header `X-Error-Code` repeats the code.",
            "`Retry-After` says when another try may help. The table has its usual value.",
            "The message says what was received and what is allowed. The log has each failed request under its id.\n",
            table(("status", "code", "cause", "try again?"), rows),
        ]
    )


def _tree() -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load(DEFAULT_FILE.read_text(encoding="utf-8"))
    section: dict[str, Any] = tree["services"][SERVICE_NAME]["enrichment"]
    return section


def _defaults() -> dict[Place, Any]:
    """Place → value, of each key in configuration.yaml that is no section."""

    def walk(tree: Mapping[str, Any], place: Place) -> Iterator[tuple[Place, Any]]:
        for key, value in tree.items():
            if isinstance(value, Mapping):
                yield from walk(value, (*place, key))
            else:
                yield (*place, key), value

    return dict(walk(_tree(), ()))


def _leaves(defaults: Mapping[Place, Any]) -> list[Place]:
    return sorted(defaults, key=lambda place: len(place) > 1)  # keys outside of sections first


def _default(defaults: Mapping[Place, Any], place: Place) -> str:
    value = defaults.get(place, Settings.model_fields[place[0]].default if len(place) == 1 else None)
    if isinstance(value, list):
        return ", ".join(map(code, value)) or "–"
    return "–" if value is None else code(value)


def _schema(place: Place) -> tuple[Mapping[str, Any], Mapping[str, Mapping[str, Any]]]:
    """Return the schema of a setting, and all models that it may refer to."""
    schema: Mapping[str, Any] = Settings.model_json_schema()
    models = schema["$defs"]
    for key in place:
        schema = resolved(schema, models)["properties"][key]
    return schema, models


def _kind(place: Place) -> str:
    """Describe what a setting allows."""
    return kind(*_schema(place)).removesuffix(" or null")


def _comments() -> dict[Place, str]:
    """Place → the comment of its key in configuration.yaml: the lines above it, and the end of its own line."""
    comments: dict[Place, str] = {}
    stack: list[tuple[int, str]] = []
    above: list[str] = []
    for line in DEFAULT_FILE.read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("#"):
            above.append(line.lstrip("# "))
        elif found := re.match(r"( *)(\w[\w-]*):[^#]*(?:# (.*))?$", line):
            indent = len(found[1])
            stack = [entry for entry in stack if entry[0] < indent] + [(indent, found[2])]
            comments[tuple(key for _, key in stack[3:])] = " ".join([*above, found[3] or ""]).strip()
            above = []
        else:
            above = []
    return comments


def _meaning(comments: Mapping[Place, str], place: Place) -> str:
    """Return a key's comment without its variable. A model's key without one has its first sibling's."""
    siblings = [key for key in comments if key[:1] == ("models",) == place[:1] and key[2:] == place[2:]]
    said = (_SAID.sub("", comments[key]) for key in (place, *siblings) if key in comments)
    return next(filter(None, said), _schema(place)[0].get("description", "")).replace("<", "&lt;").strip()
