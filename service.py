"""EnrichmentLight, the one public Service: route → decode → prepare → runner → interpret → response."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Final, TypeVar, cast

import bentoml
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

import runners
from api import answers, health, management, metrics, openapi
from api.budget import PixelBudget
from api.errors import ApiError, ErrorCode, internal_error, invalid_field, not_assigned
from api.gate import Gate, request_id
from api.heap import keep_freed
from api.link import RunnerLink
from api.page import INDEX
from api.paths import OneSpelling
from api.probes import Probes
from api.protocol import Protocol
from api.request import ImageRequest, Received, parse
from api.schemas import (
    Answer,
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
from models.at_start import import_at_start
from models.catalogue import CATALOGUE, ModelName
from profiling import Profiler
from runners import bentoml_cures, engines
from runners.contract import Item, Timing
from runners.engines.errors import EngineError
from runners.runner import pinned_versions
from settings import SERVICE_NAME, get_settings
from vision import decoding as images

logger = logging.getLogger("bentoml.enrichment.api")  # BentoML gives handlers to its own namespace only

SETTINGS: Final = get_settings()
RUNNERS: Final = runners.compose(SETTINGS)
bentoml_cures.serve_api(
    OneSpelling,
    http=partial(Protocol, patience_s=SETTINGS.limits.request_timeout_s),
    ws="none",
    timeout_keep_alive=SETTINGS.server.keep_alive_s,
)

DISTANCE_ROUTE: Final = "/object-distance"
IMAGE_LIMITS: Final = images.Limits(SETTINGS.limits.max_pixels, SETTINGS.limits.max_jpeg_scan_pixels)

ROUTES: Final = frozenset({DISTANCE_ROUTE, *(spec.route for spec in CATALOGUE.values())})

T = TypeVar("T")

_IMAGE_ERRORS: Final[Mapping[type[images.ImageError], ErrorCode]] = {
    images.DamagedImage: "invalid_image",
    images.UnsupportedFormat: "unsupported_media_type",
    images.ImageTooLarge: "image_too_large",
}


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


@dataclass(frozen=True)
class Asked:
    """A request that was read, its image up to the header. route: where it was asked."""

    route: str
    request: ImageRequest
    file: images.PictureFile


@dataclass(frozen=True)
class Opened:
    """A request's picture and items. decoded: when the picture was there, by time.perf_counter().

    untrained: whether the model that is to answer is a stand-in; kept, as its runner may be gone when it has answered.
    """

    route: str
    picture: answers.Picture
    prepared: answers.Prepared
    decoded: float
    untrained: bool


@bentoml.service(
    name=SERVICE_NAME,
    http={"host": str(SETTINGS.server.host), "port": SETTINGS.server.port},
    workers=1,  # the in-flight limit, the heartbeat and the gauges are one process's
    traffic={"timeout": SETTINGS.limits.request_timeout_s * 3},  # a backstop: the gate's timeout comes first
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
        if SETTINGS.import_at_start:
            import_at_start([name for name, runner in RUNNERS.items() if name not in pinned_versions(runner)])

    def __init__(self) -> None:
        keep_freed()
        self._started = time.monotonic()
        self._profiler = Profiler(SETTINGS.pyroscope, "api")
        self._spans = Spans.of(SETTINGS.tracing)
        self._links: dict[ModelName, RunnerLink] = {}
        self._watches: list[asyncio.Task[None]] = []
        # Decoding, resizing and PNG encoding happen here: on the event loop they would stall /health.
        self._pictures = ThreadPoolExecutor(SETTINGS.limits.decode_threads, thread_name_prefix="picture")
        self._budget = PixelBudget(int(SETTINGS.limits.max_decoded_megapixels * 1_000_000))
        _PAGES.state.service = self
        metrics.begin(ROUTES)

    @bentoml.on_startup
    async def connect(self) -> None:
        """Open a link to each runner process and begin to listen to its heartbeat."""
        proxies = {
            "pose_estimator": self.pose_estimator,
            "threat_detector": self.threat_detector,
            "person_reid": self.person_reid_runner,
            "pet_classifier": self.pet_classifier,
            "depth_estimator": self.depth_estimator,
        }
        by_service: dict[str, RunnerLink] = {}
        for name, service in RUNNERS.items():
            if service.name not in by_service:
                served = [model for model, runner in RUNNERS.items() if runner is service]
                preload = [model for model in served if model in SETTINGS.preload]
                by_service[service.name] = RunnerLink(service.name, served, proxies[name].to_async.call, preload)
            self._links[name] = by_service[service.name]
        self._runners = tuple(by_service.values())
        self._watches = [asyncio.create_task(link.watch(self._publish)) for link in self._runners]

    @bentoml.on_shutdown
    async def disconnect(self) -> None:
        """Stop listening."""
        for watch in self._watches:
            watch.cancel()
        self._pictures.shutdown(wait=False)

    def readiness(self) -> tuple[int, dict[str, Any]]:
        """HTTP status and body of GET /readyz."""
        return health.readiness(self._runners)

    def health(self) -> tuple[int, dict[str, Any]]:
        """HTTP status and body of GET /health."""
        return health.report(self._runners, time.monotonic() - self._started)

    def model_management(self) -> management.Management:
        """What the routes under /models know and may change now."""
        return management.Management(
            self._runners,
            SETTINGS.preload,
            enabled=SETTINGS.server.model_management,
            uptime_seconds=time.monotonic() - self._started,
        )

    @bentoml.api(route="/pose-analyze", input_spec=ImageInput, output_spec=PoseResponse)
    async def pose_analyze(self, request: ImageInput) -> Response:
        """Everybody in the picture: keypoints, posture, alerts."""
        return await self._respond("pose_estimator", request.received)

    @bentoml.api(route="/threat-detect", input_spec=ImageInput, output_spec=ThreatResponse)
    async def threat_detect(self, request: ImageInput) -> Response:
        """Guns, knives and whatever else the checkpoint has names for."""
        return await self._respond("threat_detector", request.received)

    @bentoml.api(route="/person-reid", input_spec=ImageInput, output_spec=ReidResponse)
    async def person_reid(self, request: ImageInput) -> Response:
        """An embedding of one person's picture, to compare by cosine with others."""
        return await self._respond("person_reid", request.received)

    @bentoml.api(route="/pet-classify", input_spec=ImageInput, output_spec=PetResponse)
    async def pet_classify(self, request: ImageInput) -> Response:
        """Cat or dog, and whether it is a household pet beyond doubt."""
        return await self._respond("pet_classifier", request.received)

    @bentoml.api(route="/depth-estimate", input_spec=ImageInput, output_spec=DepthResponse)
    async def depth_estimate(self, request: ImageInput) -> Response:
        """How near everything in the picture, or in a box of it, is within the scene."""
        return await self._respond("depth_estimator", request.received)

    @bentoml.api(route=DISTANCE_ROUTE, input_spec=DistanceInput, output_spec=DistanceResponse)
    async def object_distance(self, request: DistanceInput) -> Response:
        """How far away the object in a box is: relative depth, and metres where the caller gives a calibration."""
        return await self._respond("depth_estimator", request.received, DISTANCE_ROUTE)

    async def _respond(self, name: ModelName, received: Received, route: str = "") -> Response:
        """route: where it is another than the model's own."""
        self._spans.describe(model=name, request_id=request_id())
        try:
            body = await self._answer(name, received, route or CATALOGUE[name].route)
        except ApiError as error:
            return error.response(request_id())
        except Exception:  # BentoML would log it under an id of its own, which the caller does not have
            logger.exception("request %s failed", request_id())
            return internal_error().response(request_id())
        return Response(body, media_type="application/json")

    async def _answer(self, name: ModelName, received: Received, route: str) -> bytes:
        self._check_assigned(name)
        # First of all: a client's mistake must never be a 5xx. On a thread: a header can be made to take long.
        asked = await self._in_thread(self._read, received, route)
        self._links[name].model(name)  # before the work of decoding: can it be answered at all?
        async with self._budget.hold(asked.file.pixels):
            return await self._answer_picture(name, asked)

    async def _answer_picture(self, name: ModelName, asked: Asked) -> bytes:
        opened = await self._in_thread(self._open, name, asked)
        results = await self._ask_all(name, opened.prepared.items)
        answer, body = await self._in_thread(self._post, opened, results)
        if body is None:
            assert isinstance(answer, PetResponse)
            answer = await self._veto(answer, opened.picture)
            body = await self._in_thread(self._encode, opened, answer)
        return body

    async def _ask_all(self, name: ModelName, items: Sequence[Item]) -> Sequence[Any]:
        """The results of all items, in their order. The first that fails ends the wait for the others."""
        return await asyncio.gather(*(self._ask(name, item) for item in items))

    async def _ask(self, name: ModelName, item: Item) -> Any:
        sent = time.time_ns()
        timing: Timing | None = None
        try:
            result = await self._links[name].infer(name, item)
            timing = result["timing"]
            return result
        finally:  # a request that waited until its timeout is what one wants to see
            self._spans.of_runner(sent, timing)

    # What follows runs on threads.

    def _read(self, received: Received, route: str) -> Asked:
        """A request and its image, read up to the header. Raises ApiError for whatever is wrong with either."""
        with self._spans.step("read"):
            request = parse(received, SETTINGS.limits.max_image_bytes, wants_distance=route == DISTANCE_ROUTE)
            with _image_errors():
                return Asked(route, request, images.open_image(request.image, IMAGE_LIMITS))

    def _open(self, name: ModelName, asked: Asked) -> Opened:
        """The picture, and what the model is to be given. Raises ApiError for a damaged image or a box outside."""
        request = asked.request
        with self._spans.step("decode"), _image_errors():
            picture = answers.Picture.of(asked.file.decode(), request.box)
        decoded = time.perf_counter()
        untrained = self._links[name].model(name)["untrained"]
        options = answers.Options(request.min_confidence, request.min_keypoint_confidence, request.distance)
        return Opened(asked.route, picture, self._prepare(name, picture, options), decoded, untrained)

    def _prepare(self, name: ModelName, picture: answers.Picture, options: answers.Options) -> answers.Prepared:
        with self._spans.step("prepare"):
            model_input = self._links[name].model(name)["input"]
            return answers.prepare(name, picture, options, SETTINGS.models, model_input)

    def _post(self, opened: Opened, results: Sequence[Any]) -> tuple[Answer, bytes | None]:
        """The answer, encoded unless somebody else has to look at it first."""
        with self._spans.step("post"):
            answer = opened.prepared.answer(results)
        if isinstance(answer, PetResponse) and answer.is_household_pet:
            return answer, None
        return answer, self._encode(opened, answer)

    def _encode(self, opened: Opened, answer: Answer) -> bytes:
        with self._spans.step("encode"):
            elapsed = time.perf_counter() - opened.decoded
            metrics.LATENCY.labels(endpoint=opened.route).observe(elapsed)
            answer.inference_time_ms = round(elapsed * 1000, 2)
            if opened.untrained:
                answer.untrained = True
            return answer.model_dump_json(exclude_unset=True).encode()  # a null that was found is part of the answer

    async def _veto(self, answer: PetResponse, picture: answers.Picture) -> PetResponse:
        """No household pet where a person is in the picture: a classifier of cats and dogs calls people dogs, too.

        Asked only of a pose estimator that is ready: a pet's picture must not wait for a model to load.
        """
        statuses = health.model_statuses(self._runners)
        threshold = SETTINGS.models.pet_classifier.person_veto
        if threshold == 0 or statuses["pose_estimator"]["state"] not in health.LOADED:
            return answer
        options = answers.Options(min_confidence=threshold)
        prepared = await self._in_thread(self._prepare, "pose_estimator", picture, options)
        pose = prepared.answer(await self._ask_all("pose_estimator", prepared.items))
        assert isinstance(pose, PoseResponse)
        answer.person_in_view = pose.num_people > 0
        answer.is_household_pet = not answer.person_in_view
        return answer

    def _check_assigned(self, name: ModelName) -> None:
        if name not in self._links:
            raise not_assigned(name)

    def _publish(self) -> None:
        _, report = health.report(self._runners, 0)
        metrics.set_gauges(report)

    async def _in_thread(self, function: Callable[..., T], *args: Any) -> T:
        call = partial(copy_context().run, function, *args)  # the request's span is the current one there, too
        return await asyncio.get_running_loop().run_in_executor(self._pictures, call)


@contextmanager
def _image_errors() -> Iterator[None]:
    try:
        yield
    except images.BoxOutside as error:
        raise invalid_field("bbox", str(error)) from None
    except images.ImageError as error:
        raise ApiError(_IMAGE_ERRORS[type(error)], str(error)) from None


_service: Final = cast(Any, EnrichmentLight)  # the decorator made it a Service, which mypy can't see
_UNTOUCHED: Final = ("/health", "/livez", "/readyz", "/healthz", "/metrics")
if SETTINGS.server.cors_origins:  # the first of ours to see a request, so that refusals can be read from a page, too
    _service.add_asgi_middleware(
        CORSMiddleware,
        allow_origins=SETTINGS.server.cors_origins,
        allow_methods=("GET", "HEAD", "POST"),
        allow_headers=("*",),
        expose_headers=("X-Request-ID", "Retry-After"),
    )
_service.add_asgi_middleware(
    Gate,
    routes=ROUTES,
    untouched=frozenset(_UNTOUCHED),
    limits=SETTINGS.limits,
)
_service.add_asgi_middleware(
    Probes,
    answers={
        "/livez": lambda: (200, {"status": "alive"}),
        "/healthz": lambda: (200, {"status": "alive"}),
        "/readyz": lambda: _PAGES.state.service.readiness(),
    },
)
