"""The runner services, of the same classes wherever they run: in the API process (placement: embedded), in one of their
own (shared), or in one for each model (isolated)."""

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
    """Where the runners run. `auto` is embedded on OpenVINO, which has no device to lose, and shared on torch.

    Raises EngineError where embedded is asked for and torch would be the engine.
    """
    asked = settings.placement
    if asked in ("shared", "isolated"):
        return asked
    on_openvino = engine_choice.choose(settings, device.choose(settings.device.gpu, dict(os.environ))) == "openvino"
    if asked == "embedded" and not on_openvino:
        raise EngineError(
            "ENRICHMENT_PLACEMENT is embedded, and torch would compute: CUDA would take the API with it when it fails."
            " Take auto, shared or isolated; or ENRICHMENT_ENGINE=openvino for the CPU"
        )
    return "embedded" if on_openvino else "shared"


def check_start(settings: Settings, placement: Placement) -> None:
    """Raises EngineError where the service can't work as it is set up.

    So where a GPU is required and there is none, and where a runner process would take its calls by TCP: BentoML
    unpickles them.
    """
    engine_choice.check_gpu(settings)
    if placement != "embedded" and not bentoml_cures.runners_by_unix_sockets():
        raise EngineError(
            "without unix sockets any user of this machine could run code in the runner process"
            f" (ENRICHMENT_PLACEMENT={placement}). Unset BENTOML_NO_UDS, or take embedded"
        )


def dependencies(services: Services) -> type:
    """A base for the public service, by which BentoML knows of its runner services."""
    return type("Dependencies", (), {f"{name}_runner": bentoml.depends(service) for name, service in services.items()})


def calls(public: object, services: Services) -> dict[str, Callable[..., Any]]:
    """Name of each runner service → BentoML's internal call into it, async. public: an instance of the service."""
    return {service.name: getattr(public, f"{name}_runner").to_async.call for name, service in services.items()}


def compose(settings: Settings) -> Services:
    """The runner service of each assigned model: the same one five times, or five."""
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
        # One limiter for all methods of the process: with fewer, a 3 s depth call would hold re-identification back.
        threads=len(names) * engine_choice.MOST_CALLS,
        traffic={"timeout": settings.limits.request_timeout_s * 2},  # a backstop: the API's own timeout comes first
        runner_connection=bentoml_cures.RUNNER_CONNECTION,
        logging={"access": {"enabled": False}},  # the API logs each request already, and the heartbeat is one a second
    )(inner)
    inner.service = service
    return service


def _batchable(name: ModelName, settings: Settings) -> Any:
    """A model's method of the runner service: a BentoML API with adaptive batching, sized by the model's settings."""

    # BentoML makes its schemas of the annotations, and pydantic would take typed items apart.
    def infer(self: Runner, items: list[Any]) -> list[Any]:
        return self.infer(name, items)

    infer.__name__ = name
    infer.__doc__ = "items: tasks.task.Item → the task's result, or runners.contract.Failure, for each."
    api: Any = bentoml.api(
        batchable=True,
        max_batch_size=settings.models[name].max_batch_size,
        # BentoML drops what it expects to take longer, with a 503. The API's own timeout is the one that is meant.
        max_latency_ms=int(settings.limits.request_timeout_s * 1000) * 10,
    )(infer)
    # Said once: BentoML would make the output's whole JSON schema anew for each answer to find it out.
    api.output_spec.media_type = "application/json"
    return api


def _weights(names: Sequence[ModelName]) -> dict[str, bentoml.models.BentoModel]:
    """Class attributes that make `bentoml build` pack the models which are in the store; absent ones start degraded."""
    return {f"weights_of_{name}": bentoml.models.BentoModel(f"{name}:latest") for name in names if _is_stored(name)}


def _is_stored(name: ModelName) -> bool:
    try:
        return store.find(name) is not None
    except StoreError:
        return False  # the runner finds it out again and reports it: one damaged model must not stop the others
