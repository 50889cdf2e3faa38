"""EnrichmentLight, the one public Service: route → decode → prepare → runner → interpret → response."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, Final, cast

import bentoml
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

import engines
import runners
from api import health, management, metrics, openapi
from api.answering import DISTANCE_ROUTE, MODEL_OF, Answering
from api.embedded import EmbeddedLink, Link
from api.errors import ApiError
from api.front import Front
from api.gate import Gate, request_id
from api.heap import keep_freed
from api.link import RunnerLink
from api.open_files import allow_many_connections
from api.page import INDEX
from api.paths import OneSpelling
from api.probes import Probes
from api.protocol import Protocol
from api.request import Received
from api.schemas import (
    DepthResponse,
    DistanceInput,
    DistanceResponse,
    ImageInput,
    PetResponse,
    PoseResponse,
    ReidResponse,
    ThreatResponse,
)
from api.tracing import Spans, bentoml_settings
from api.uploads import STALLED_S
from engines.deadline import Deadline
from engines.errors import EngineError
from importing.at_start import import_at_start
from models.catalogue import CATALOGUE, ModelName
from profiling import Profiler
from runners import bentoml_cures
from runners.runner import pinned_versions
from settings import SERVICE_NAME, get_settings

SETTINGS: Final = get_settings()
RUNNERS: Final = runners.compose(SETTINGS)
try:
    PLACEMENT: Final = runners.placement(SETTINGS)
except EngineError as error:
    sys.exit(f"{SERVICE_NAME} can't start: {error}")
ROUTES: Final = frozenset(MODEL_OF)


def _runner(name: ModelName) -> Any:
    """The runner service of a model as a dependency; None where the model is assigned to the heavy service."""
    return bentoml.depends(RUNNERS[name]) if name in RUNNERS else None


async def _health(request: Request) -> Response:
    status, body = request.app.state.service.health()
    return JSONResponse(body, status)


async def _index(_: Request) -> Response:
    return FileResponse(INDEX)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response(request_id())


async def _openapi(_: Request) -> Response:
    return Response(_document(), media_type="application/json")


@cache
def _document() -> bytes:
    operations = [*openapi.analysis(cast(Any, EnrichmentLight).apis), *openapi.STATE]
    return json.dumps(openapi.document(operations), ensure_ascii=False).encode()


_PAGES: Final = Starlette(
    routes=[
        Route("/health", _health),
        *management.routes(),
        Route("/", _index),
        Route("/openapi.json", _openapi),
        Route("/docs.json", _openapi),  # BentoML's place for it
    ],
    exception_handlers={ApiError: _refused},
)


@bentoml.service(
    name=SERVICE_NAME,
    http={"host": str(SETTINGS.server.host), "port": SETTINGS.server.port},
    workers=1,  # the queues, the heartbeat and the gauges are one process's
    traffic={"timeout": SETTINGS.limits.request_timeout_s * 3},  # a backstop: the front's timeout comes first
    tracing=bentoml_settings(SETTINGS.tracing),
    runner_probe={"enabled": False},  # BentoML's own hangs 5 s on a runner that is gone: __is_ready__ knows at once
)
@bentoml.asgi_app(_PAGES, path="/")
class EnrichmentLight:
    """Five light vision models for home-security cameras."""

    pose_estimator = _runner("pose_estimator")
    threat_detector = _runner("threat_detector")
    person_reid_runner = _runner("person_reid")
    pet_classifier = _runner("pet_classifier")
    depth_estimator = _runner("depth_estimator")

    @bentoml.on_deployment
    @staticmethod
    def prepare() -> None:
        """Before anything is started: end `bentoml serve` where a GPU is required and there is none; import weights."""
        try:
            engines.check_gpu(SETTINGS)
        except EngineError as error:
            sys.exit(f"{SERVICE_NAME} can't start: {error}")
        if PLACEMENT != "embedded" and not bentoml_cures.runners_by_unix_sockets():
            sys.exit(
                f"{SERVICE_NAME} can't start: without unix sockets any user of this machine could run code in the"
                f" runner process (ENRICHMENT_PLACEMENT={PLACEMENT}). Unset BENTOML_NO_UDS, or take embedded"
            )
        if PLACEMENT == "embedded":
            bentoml_cures.start_no_runners(cast(Any, EnrichmentLight))
        if SETTINGS.import_at_start:
            import_at_start([name for name, runner in RUNNERS.items() if name not in pinned_versions(runner)])

    def __init__(self) -> None:
        keep_freed()
        allow_many_connections()
        self._started = time.monotonic()
        self._links: tuple[Link, ...] = ()
        self._runners: dict[str, Any] = {}  # in this process
        self._watches: list[asyncio.Task[None]] = []
        _PAGES.state.service = self
        metrics.begin(ROUTES)

    @bentoml.on_startup
    async def connect(self) -> None:
        """Open the lines to the runners, begin to listen to them, and make ready to answer."""
        links = self._embedded() if PLACEMENT == "embedded" else self._remote()
        self._links = tuple(dict.fromkeys(links.values()))
        if PLACEMENT != "embedded":  # else the runner has it
            self._profiler = Profiler(SETTINGS.pyroscope, "api")
        self.answering = Answering(SETTINGS, links, Spans.of(SETTINGS.tracing))
        self._watches = [asyncio.create_task(link.watch(self._publish)) for link in self._links]

    def _embedded(self) -> dict[ModelName, Link]:
        """The runners in this process."""
        self._runners = bentoml_cures.embed(cast(Any, EnrichmentLight))
        return self._linked(lambda name, models, preload: EmbeddedLink(name, models, self._runners[name], preload))

    def _remote(self) -> dict[ModelName, Link]:
        """The runners in processes of their own."""
        proxies = {
            "pose_estimator": self.pose_estimator,
            "threat_detector": self.threat_detector,
            "person_reid": self.person_reid_runner,
            "pet_classifier": self.pet_classifier,
            "depth_estimator": self.depth_estimator,
        }
        calls = {service.name: proxies[name].to_async.call for name, service in RUNNERS.items()}
        return self._linked(lambda name, models, preload: RunnerLink(name, models, calls[name], preload))

    def _linked(self, link: Callable[[str, Sequence[ModelName], Sequence[ModelName]], Link]) -> dict[ModelName, Link]:
        """Model → its line, one for each runner service. link: name, models, those to be preloaded → the line."""
        by_service: dict[str, Link] = {}
        for service in dict.fromkeys(RUNNERS.values()):
            models = [model for model, runner in RUNNERS.items() if runner is service]
            preload = [model for model in models if model in SETTINGS.preload]
            by_service[service.name] = link(service.name, models, preload)
        return {name: by_service[service.name] for name, service in RUNNERS.items()}

    @bentoml.on_shutdown
    async def disconnect(self) -> None:
        """Stop listening, and what goes on beside the calls."""
        for watch in self._watches:
            watch.cancel()
        for runner in self._runners.values():
            await asyncio.to_thread(runner.close)

    def readiness(self) -> tuple[int, dict[str, Any]]:
        """HTTP status and body of GET /readyz."""
        return health.readiness(self._links)

    def health(self) -> tuple[int, dict[str, Any]]:
        """HTTP status and body of GET /health."""
        return health.report(self._links, time.monotonic() - self._started)

    def model_management(self) -> management.Management:
        """What the routes under /models know and may change now."""
        return management.Management(
            self._links,
            SETTINGS.preload,
            enabled=SETTINGS.server.model_management,
            uptime_seconds=time.monotonic() - self._started,
        )

    @bentoml.api(route="/pose-analyze", input_spec=ImageInput, output_spec=PoseResponse)
    async def pose_analyze(self, request: ImageInput) -> Response:
        """Everybody in the picture: keypoints, posture, alerts."""
        return await self._respond(CATALOGUE["pose_estimator"].route, request.received)

    @bentoml.api(route="/threat-detect", input_spec=ImageInput, output_spec=ThreatResponse)
    async def threat_detect(self, request: ImageInput) -> Response:
        """Guns, knives and whatever else the checkpoint has names for."""
        return await self._respond(CATALOGUE["threat_detector"].route, request.received)

    @bentoml.api(route="/person-reid", input_spec=ImageInput, output_spec=ReidResponse)
    async def person_reid(self, request: ImageInput) -> Response:
        """An embedding of one person's picture, to compare by cosine with others."""
        return await self._respond(CATALOGUE["person_reid"].route, request.received)

    @bentoml.api(route="/pet-classify", input_spec=ImageInput, output_spec=PetResponse)
    async def pet_classify(self, request: ImageInput) -> Response:
        """Cat or dog, and whether it is a household pet beyond doubt."""
        return await self._respond(CATALOGUE["pet_classifier"].route, request.received)

    @bentoml.api(route="/depth-estimate", input_spec=ImageInput, output_spec=DepthResponse)
    async def depth_estimate(self, request: ImageInput) -> Response:
        """How near everything in the picture, or in a box of it, is within the scene."""
        return await self._respond(CATALOGUE["depth_estimator"].route, request.received)

    @bentoml.api(route=DISTANCE_ROUTE, input_spec=DistanceInput, output_spec=DistanceResponse)
    async def object_distance(self, request: DistanceInput) -> Response:
        """How far away the object in a box is: relative depth, and metres where the caller gives a calibration."""
        return await self._respond(DISTANCE_ROUTE, request.received)

    async def _respond(self, route: str, received: Received) -> Response:
        """What the front does itself for requests by HTTP; this is for calls within BentoML."""
        try:
            deadline = Deadline.after(SETTINGS.limits.request_timeout_s)
            return Response(await self.answering.answer(route, received, deadline), media_type="application/json")
        except ApiError as error:
            return error.response(request_id())

    def _publish(self) -> None:
        _, report = health.report(self._links, 0)
        metrics.set_gauges(report)


_service: Final = cast(Any, EnrichmentLight)  # the decorator made it a Service, which mypy can't see
_UNTOUCHED: Final = ("/health", "/livez", "/readyz", "/healthz", "/metrics")
_TRACED: Final = SETTINGS.tracing.endpoint is not None  # then BentoML's middleware has to make the request's span


def _front(app: ASGIApp) -> Front:
    return Front(
        app, ROUTES, SETTINGS.limits, lambda: cast(Answering, _PAGES.state.service.answering), outermost=not _TRACED
    )


def _outermost(app: Starlette) -> ASGIApp:
    served: ASGIApp = app if _TRACED else _front(app)
    if SETTINGS.server.cors_origins:  # before all others, so that refusals can be read from a page, too
        served = CORSMiddleware(
            served,
            allow_origins=SETTINGS.server.cors_origins,
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=("*",),
            expose_headers=("X-Request-ID", "Retry-After"),
        )
    return OneSpelling(served, app.router)


bentoml_cures.serve_api(
    _outermost,
    http=partial(Protocol, patience_s=min(STALLED_S, SETTINGS.limits.request_timeout_s)),
    ws="none",
    timeout_keep_alive=SETTINGS.server.keep_alive_s,
)
if _TRACED:
    _service.add_asgi_middleware(_front)
_service.add_asgi_middleware(Gate, untouched=frozenset(_UNTOUCHED))
_service.add_asgi_middleware(
    Probes,
    answers={
        "/livez": lambda: (200, {"status": "alive"}),
        "/healthz": lambda: (200, {"status": "alive"}),
        "/readyz": lambda: _PAGES.state.service.readiness(),
    },
)
