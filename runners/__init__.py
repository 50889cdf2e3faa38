"""Composes the runner services: in the API process (embedded), in one other process (shared), or one per model
(isolated)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import bentoml

from engines import device
from engines.errors import EngineError
from models import store
from models.catalogue import ModelName
from models.store import StoreError
from runners import bentoml_cures, engine_choice
from runners.runner import Runner
from settings import Settings

Placement = Literal["embedded", "shared", "isolated"]
Services: TypeAlias = Mapping[ModelName, "bentoml.Service[Any]"]


def placement(settings: Settings) -> Placement:
    """The placement of the runners. `auto` is embedded on OpenVINO, which can't lose its device, and shared on torch.

    Raises EngineError for embedded with torch as the engine.
    """
    asked = settings.placement
    if asked in ("shared", "isolated"):
        return asked
    on_openvino = engine_choice.choose(settings, device.choose(settings.device.gpu, dict(os.environ))) == "openvino"
    if asked == "embedded" and not on_openvino:
        raise EngineError(
            "ENRICHMENT_PLACEMENT is embedded, and the engine is torch: a CUDA failure would end the API process, too."
            " Set ENRICHMENT_PLACEMENT to auto, shared or isolated, or ENRICHMENT_ENGINE=openvino to use the CPU"
        )
    return "embedded" if on_openvino else "shared"


def check_start(settings: Settings, placement: Placement) -> None:
    """Raise EngineError if the service can't work with these settings.

    Two cases: a required GPU is missing, or a runner process would be reached by TCP. BentoML unpickles those calls.
    """
    engine_choice.check_gpu(settings)
    if placement != "embedded" and not bentoml_cures.runners_by_unix_sockets():
        raise EngineError(
            "without unix sockets any user of this machine could run code in the runner process"
            f" (ENRICHMENT_PLACEMENT={placement}). Unset BENTOML_NO_UDS, or take embedded"
        )


def dependencies(services: Services) -> type:
    """Make a base class of the public service that declares its runner services to BentoML."""
    return type("Dependencies", (), {f"{name}_runner": bentoml.depends(service) for name, service in services.items()})


def calls(public: object, services: Services) -> dict[str, Callable[..., Any]]:
    """Runner service name → BentoML's async call into it. public: the instance of the public service."""
    return {service.name: getattr(public, f"{name}_runner").to_async.call for name, service in services.items()}


def compose(settings: Settings) -> Services:
    """The runner service of each assigned model: one for all, or one each if the placement is isolated."""
    bentoml_cures.install(tracing=settings.tracing.endpoint is not None)
    names = settings.assigned()
    if settings.placement == "isolated":
        return {name: _service(f"enrichment-{name.replace('_', '-')}", [name], settings) for name in names}
    if not names:
        return {}
    return dict.fromkeys(names, _service("enrichment-runner", names, settings))


def _service(service_name: str, names: Sequence[ModelName], settings: Settings) -> bentoml.Service[Any]:
    members = {"names": tuple(names), "__doc__": f"Runs {', '.join(names)}."}
    methods = {name: _batchable(name, settings) for name in names}
    inner: type[Runner] = type("EnrichmentRunner", (Runner,), members | methods | _weights(names))
    service = bentoml.service(
        name=service_name,
        # All methods of the process share these threads. With fewer, a slow depth call would block the other models.
        threads=len(names) * engine_choice.MOST_CALLS,
        traffic={"timeout": settings.limits.request_timeout_s * 2},  # a backstop: the API's timeout ends first
        runner_connection=bentoml_cures.RUNNER_CONNECTION,
        logging={"access": {"enabled": False}},  # the API logs requests; here the heartbeat would add a line a second
    )(inner)
    inner.service = service
    return service


def _batchable(name: ModelName, settings: Settings) -> Any:
    """Make a model's method of the runner service: a BentoML API with adaptive batching, by the model's settings."""

    # `Any`, because BentoML derives pydantic schemas from the annotations, and pydantic would convert typed items.
    def infer(self: Runner, items: list[Any]) -> list[Any]:
        return self.infer(name, items)

    infer.__name__ = name
    infer.__doc__ = "items: tasks.task.Item → the task's result, or runners.contract.Failure, for each."
    api: Any = bentoml.api(
        batchable=True,
        max_batch_size=settings.models[name].max_batch_size,
        # BentoML answers 503 if it expects a longer wait. Ten times the API's timeout, so that it never does.
        max_latency_ms=int(settings.limits.request_timeout_s * 1000) * 10,
    )(infer)
    # Set once. Otherwise BentoML would build the output's JSON schema for each answer to find the media type.
    api.output_spec.media_type = "application/json"
    return api


def _weights(names: Sequence[ModelName]) -> dict[str, bentoml.models.BentoModel]:
    """Class attributes that make `bentoml build` pack the models of the store. Missing models start as absent."""
    return {f"weights_of_{name}": bentoml.models.BentoModel(f"{name}:latest") for name in names if _is_stored(name)}


def _is_stored(name: ModelName) -> bool:
    try:
        return store.find(name) is not None
    except StoreError:
        return False  # the runner reports the damaged model; the other models must still start
