"""The synchronous and the asynchronous client. Both carry out the steps that _Base yields for a call."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import time
from collections.abc import Callable, Coroutine, Generator, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

import httpx

from enrichment_client import calls
from enrichment_client.calls import ASSIGNMENTS, Call
from enrichment_client.errors import EnrichmentError

if TYPE_CHECKING:
    from typing_extensions import Self

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_URL: Final = "http://127.0.0.1:8096"
TIMEOUT_S: Final = 35.0  # longer than the service's own 30 s, so that its answer comes first
_CONNECT_S: Final = 5.0
_LOST: Final = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout)  # worth another attempt
_MISROUTED: Final = 421

# One step of a call: a request to send, or seconds to wait. The caller sends the step's outcome back.
_Step = httpx.Request | float
_Came = httpx.Response | httpx.RequestError | None


class _Base:
    """What both clients share: services, and the steps of a call."""

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        heavy_url: str | None = None,
        api_key: str | None = None,
        timeout: float = TIMEOUT_S,
        retries: int = 2,
        *,
        assignments: Mapping[str, str] | None = None,
    ) -> None:
        """Build a client of the light service and perhaps of the heavy one.

        timeout: seconds for a call with all its attempts and waits. retries: attempts beyond the first. assignments:
        short model name (`pose`) → `light` or `heavy`, by default `light`.
        """
        self._urls = {"light": _url(base_url)}
        if heavy_url is not None:
            self._urls["heavy"] = _url(heavy_url)
        self._assigned = dict(assignments or {})
        self._headers = {"User-Agent": "ai-enrichment-light-client"} | ({"X-API-Key": api_key} if api_key else {})
        self._timeout = timeout
        self._retries = retries

    @classmethod
    def from_env(cls, environment: Mapping[str, str] = os.environ, **options: Any) -> Self:
        """Build a client from ENRICHMENT_LIGHT_URL, ENRICHMENT_URL, ENRICHMENT_*_SERVICE and ENRICHMENT_API_KEY.

        options: the constructor's. Raises ValueError for an assignment that is neither `light` nor `heavy`.
        """
        assignments = {model: environment.get(variable) or "light" for model, variable in ASSIGNMENTS.items()}
        for model, service in assignments.items():
            if service not in ("light", "heavy"):
                raise ValueError(f"{ASSIGNMENTS[model]} is {service!r}; light and heavy are allowed")
        defaults: dict[str, Any] = {
            "base_url": environment.get("ENRICHMENT_LIGHT_URL") or "http://ai-enrichment-light:8096",
            "heavy_url": environment.get("ENRICHMENT_URL") or "http://ai-enrichment:8094",
            "api_key": environment.get("ENRICHMENT_API_KEY"),
            "assignments": assignments,
        }
        return cls(**(defaults | options))

    def _steps(self, call: Call[T]) -> Generator[_Step, _Came, T]:
        """Yield the requests and waits of a call until it has its answer. Raises EnrichmentError."""
        end = time.monotonic() + self._timeout
        attempts = 1 + (self._retries if call.repeatable else 0)
        services = self._services(call.model)
        while True:
            service, attempts = services[0], attempts - 1
            came = yield self._request(call, self._urls[service], end - time.monotonic())
            if isinstance(came, httpx.Response) and came.status_code in call.statuses:
                answer = call.read(came)
                if call.model is not None:
                    self._assigned[call.model] = service
                return answer
            error = _error(came, self._urls[service])
            if error.status == _MISROUTED and len(services) > 1:
                services, attempts = services[1:], attempts + 1
                continue
            pause = _pause(came, attempts_left=attempts, retries=self._retries)
            if not error.may_pass or attempts <= 0 or time.monotonic() + pause >= end:
                raise error
            yield pause

    def _services(self, model: str | None) -> list[str]:
        """The services to ask, the assigned one first."""
        first = self._assigned.get(model or "", "light")
        return sorted(self._urls, key=lambda service: service != first) if model else ["light"]

    def _request(self, call: Call[Any], url: str, left_s: float) -> httpx.Request:
        request = call.request(url)
        request.headers.update(self._headers)
        left_s = max(left_s, 0.001)
        request.extensions["timeout"] = httpx.Timeout(left_s, connect=min(left_s, _CONNECT_S)).as_dict()
        return request


def _url(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"{url!r} is no URL: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"{url!r} is no URL of a service, as {DEFAULT_URL} is")
    return url.rstrip("/")


def _error(came: _Came, url: str) -> EnrichmentError:
    if isinstance(came, httpx.Response):
        return EnrichmentError.of(came)
    if isinstance(came, _LOST):
        return EnrichmentError(None, "unreachable", f"{url}: {came or type(came).__name__}")
    if isinstance(came, httpx.TimeoutException):
        return EnrichmentError(None, "timeout", f"{url} did not answer in time")
    return EnrichmentError(None, "failed", f"{url}: {came}")


def _pause(came: _Came, *, attempts_left: int, retries: int) -> float:
    """Seconds until the next attempt: what Retry-After says, else half a second and twice as long each time."""
    asked = came.headers.get("retry-after", "") if isinstance(came, httpx.Response) else ""
    return float(asked) if asked.isdecimal() else 0.5 * 2.0 ** (retries - attempts_left)


def _sync(build: Callable[P, Call[T]]) -> Callable[Concatenate[Client, P], T]:
    """Make the method of the client that makes a call."""

    @functools.wraps(build)
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.send(build(*args, **kwargs))

    return _as_method(method, build)


def _async(build: Callable[P, Call[T]]) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    """The same for the asynchronous client. Pictures are read and encoded on a thread."""

    @functools.wraps(build)
    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.send(await asyncio.to_thread(build, *args, **kwargs))

    return _as_method(method, build)


MethodT = TypeVar("MethodT", bound=Callable[..., Any])


def _as_method(method: MethodT, build: Callable[..., Any]) -> MethodT:
    """Give a method the call's signature behind `self`, for help() and editors."""
    this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    signature = inspect.signature(build)
    method.__signature__ = signature.replace(parameters=[this, *signature.parameters.values()])  # type: ignore[attr-defined]
    return method


class Client(_Base):
    """A synchronous client, for any number of threads. A context manager.

    Each method raises EnrichmentError where there is no answer, and ValueError, TypeError or OSError for a picture
    that can't be read.
    """

    def __init__(self, *args: Any, transport: httpx.BaseTransport | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._http = httpx.Client(transport=transport)

    def send(self, call: Call[T]) -> T:
        """Make a call of enrichment_client.calls."""
        steps = self._steps(call)
        came: _Came = None
        while True:
            try:
                step = steps.send(came)
            except StopIteration as done:
                answer: T = done.value
                return answer
            came = self._carry(step)

    def _carry(self, step: _Step) -> _Came:
        if isinstance(step, float):
            time.sleep(step)
            return None
        try:
            return self._http.send(step)
        except httpx.RequestError as error:
            return error

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    pose = _sync(calls.pose)
    threat = _sync(calls.threat)
    reid = _sync(calls.reid)
    pet = _sync(calls.pet)
    depth = _sync(calls.depth)
    distance = _sync(calls.distance)
    enrich = _sync(calls.enrich)
    overlay = _sync(calls.overlay)
    compare = _sync(calls.compare)
    match = _sync(calls.match)
    health = _sync(calls.health)
    models = _sync(calls.models)
    preload = _sync(calls.preload)
    unload = _sync(calls.unload)


class AsyncClient(_Base):
    """An asynchronous client with the methods of Client. An async context manager."""

    def __init__(self, *args: Any, transport: httpx.AsyncBaseTransport | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._http = httpx.AsyncClient(transport=transport)

    async def send(self, call: Call[T]) -> T:
        """Make a call of enrichment_client.calls."""
        steps = self._steps(call)
        came: _Came = None
        while True:
            try:
                step = steps.send(came)
            except StopIteration as done:
                answer: T = done.value
                return answer
            came = await self._carry(step)

    async def _carry(self, step: _Step) -> _Came:
        if isinstance(step, float):
            await asyncio.sleep(step)
            return None
        try:
            return await self._http.send(step)
        except httpx.RequestError as error:
            return error

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    pose = _async(calls.pose)
    threat = _async(calls.threat)
    reid = _async(calls.reid)
    pet = _async(calls.pet)
    depth = _async(calls.depth)
    distance = _async(calls.distance)
    enrich = _async(calls.enrich)
    overlay = _async(calls.overlay)
    compare = _async(calls.compare)
    match = _async(calls.match)
    health = _async(calls.health)
    models = _async(calls.models)
    preload = _async(calls.preload)
    unload = _async(calls.unload)
