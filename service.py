"""Defines EnrichmentLight, the one public BentoML service: its routes and its parts."""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

import bentoml
from starlette.responses import Response

import runners
from api import before_start, links, metrics
from api.answering import Answering
from api.application import inference_routes, surround
from api.comparison import COMPARE_ROUTE, MATCH_ROUTE
from api.comparison_schemas import CompareInput, MatchInput
from api.enrich_schemas import EnrichInput, EnrichResponse
from api.enrichment import ENRICH_ROUTE
from api.heap import keep_freed
from api.link import Link
from api.open_files import allow_many_connections
from api.pages import pages
from api.reports import Reports
from api.schemas import DistanceInput, DrawnInput, ImageInput, MapInput
from api.steps import DISTANCE_ROUTE
from api.tracing import Spans, bentoml_settings
from models.catalogue import CATALOGUE, ModelName
from runners import bentoml_cures, signs
from runners.profiling import Profiler
from settings import SERVICE_NAME, get_settings
from tasks import TASKS
from tasks.depth_estimator import DistanceResponse
from tasks.similarity import CompareResponse, MatchResponse

# Only this module reads the settings at import: BentoML's decorators need host, port and batch sizes.
SETTINGS: Final = get_settings()
RUNNERS: Final = runners.compose(SETTINGS)
PLACEMENT: Final = before_start.placement(SETTINGS)
_Dependencies: Final[Any] = runners.dependencies(RUNNERS)
_PAGES: Final = pages(lambda: cast(Any, EnrichmentLight).apis, SETTINGS)


def _analysis(name: ModelName, asked: type[ImageInput]) -> Any:
    """Return the decorator of one model's route."""
    return bentoml.api(route=CATALOGUE[name].route, input_spec=asked, output_spec=TASKS[name].response)


@bentoml.service(
    name=SERVICE_NAME,
    http={"host": str(SETTINGS.server.host), "port": SETTINGS.server.port},
    workers=1,  # the queues, the heartbeat and the gauges must share one process
    traffic={"timeout": SETTINGS.limits.request_timeout_s * 3},  # a backstop; the front's own timeout comes first
    tracing=bentoml_settings(SETTINGS.tracing),
    runner_probe={"enabled": False},  # BentoML's own readiness probe hangs 5 s on a runner that is down
)
@bentoml.asgi_app(_PAGES, path="/")
class EnrichmentLight(_Dependencies):
    """Five light vision models for home-security cameras."""

    @bentoml.on_deployment
    @staticmethod
    def prepare() -> None:
        """Check the setup and import weights before anything starts. End `bentoml serve` if the setup can't work."""
        before_start.prepare(SETTINGS, PLACEMENT, RUNNERS)
        if PLACEMENT == "embedded":
            bentoml_cures.start_no_runners(_service)

    def __init__(self) -> None:
        keep_freed()
        allow_many_connections()
        self._runners: dict[str, Any] = {}  # embedded runners by name
        self._watches: list[asyncio.Task[None]] = []
        self.reports = _PAGES.state.reports = Reports(SETTINGS)
        metrics.begin(inference_routes(SETTINGS))

    @bentoml.on_startup
    async def connect(self) -> None:
        """Open the links to the runners, start their heartbeats, and begin to answer requests."""
        by_model = self._links()
        all_links = tuple(dict.fromkeys(by_model.values()))
        self.reports.links = all_links
        self.answering = _PAGES.state.answering = Answering(SETTINGS, by_model, Spans.of(SETTINGS.tracing))
        self.reports.activity = self.answering.activity
        self._watches = [asyncio.create_task(link.watch(self.reports.publish)) for link in all_links]
        self._watches.append(asyncio.create_task(signs.beat()))

    def _links(self) -> dict[ModelName, Link]:
        if PLACEMENT == "embedded":
            self._runners = bentoml_cures.embed(_service)
            return links.embedded(RUNNERS, SETTINGS.preload, self._runners)
        self._profiler = Profiler(SETTINGS.pyroscope, "api")  # an embedded runner starts its own profiler
        return links.remote(RUNNERS, SETTINGS, runners.calls(self, RUNNERS))

    @bentoml.on_shutdown
    async def disconnect(self) -> None:
        """Stop the heartbeats, and close the embedded runners."""
        for watch in self._watches:
            watch.cancel()
        for runner in self._runners.values():
            await asyncio.to_thread(runner.close)

    @_analysis("pose_estimator", DrawnInput)
    async def pose_analyze(self, request: DrawnInput) -> Response:
        """Find people, with keypoints, posture and alerts."""
        return await self.answering.respond(CATALOGUE["pose_estimator"].route, request.received)

    @_analysis("threat_detector", DrawnInput)
    async def threat_detect(self, request: DrawnInput) -> Response:
        """Find weapons: guns, knives and all other classes of the checkpoint."""
        return await self.answering.respond(CATALOGUE["threat_detector"].route, request.received)

    @_analysis("person_reid", ImageInput)
    async def person_reid(self, request: ImageInput) -> Response:
        """Embed a person's image, for comparison with others by cosine similarity."""
        return await self.answering.respond(CATALOGUE["person_reid"].route, request.received)

    @_analysis("pet_classifier", DrawnInput)
    async def pet_classify(self, request: DrawnInput) -> Response:
        """Classify a cat or dog, and decide whether it is certainly a household pet."""
        return await self.answering.respond(CATALOGUE["pet_classifier"].route, request.received)

    @_analysis("depth_estimator", MapInput)
    async def depth_estimate(self, request: MapInput) -> Response:
        """Estimate the relative depth of the whole image, or of a box in it."""
        return await self.answering.respond(CATALOGUE["depth_estimator"].route, request.received)

    @bentoml.api(route=DISTANCE_ROUTE, input_spec=DistanceInput, output_spec=DistanceResponse)
    async def object_distance(self, request: DistanceInput) -> Response:
        """Estimate the distance of the object in a box: relative depth, and metres if a calibration is sent."""
        return await self.answering.respond(DISTANCE_ROUTE, request.received)

    @bentoml.api(route=ENRICH_ROUTE, input_spec=EnrichInput, output_spec=EnrichResponse)
    async def enrich(self, request: EnrichInput) -> Response:
        """Ask several models about one image and its boxes. One that fails has an error beside the others' results."""
        return await self.answering.respond(ENRICH_ROUTE, request.received)

    @bentoml.api(route=COMPARE_ROUTE, input_spec=CompareInput, output_spec=CompareResponse)
    async def person_reid_compare(self, request: CompareInput) -> Response:
        """Compare two people, each by an image or an embedding."""
        return await self.answering.respond(COMPARE_ROUTE, request.received)

    @bentoml.api(route=MATCH_ROUTE, input_spec=MatchInput, output_spec=MatchResponse)
    async def person_reid_match(self, request: MatchInput) -> Response:
        """Find a person among up to 1,000 embeddings. Nothing is stored."""
        return await self.answering.respond(MATCH_ROUTE, request.received)


_service: Final = cast(Any, EnrichmentLight)  # the decorator turns the class into a Service, unknown to mypy
surround(_service, SETTINGS, lambda: _PAGES.state.answering, lambda: _PAGES.state.reports.readiness())
