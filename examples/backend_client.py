"""An example backend client of ai-enrichment-light: by HTTP with the seed's routing variables, or by BentoML's client.

usage: python examples/backend_client.py PICTURE [PICTURE …]
"""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self

import bentoml
import httpx

Json = dict[str, Any]

# Route → the variable that names the service of its model, `light` or `heavy`.
ROUTES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "/pose-analyze": "ENRICHMENT_POSE_SERVICE",
        "/threat-detect": "ENRICHMENT_THREAT_SERVICE",
        "/person-reid": "ENRICHMENT_REID_SERVICE",
        "/pet-classify": "ENRICHMENT_PET_SERVICE",
        "/depth-estimate": "ENRICHMENT_DEPTH_SERVICE",
    }
)
_TIMEOUT_S: Final = 35.0  # longer than the service's timeout of 30 s, so that its answer comes first
_ATTEMPTS: Final = 3


class EnrichmentError(RuntimeError):
    """The service answered with an error. final: a retry can't help (4xx except 429)."""

    def __init__(self, response: httpx.Response) -> None:
        try:
            error = response.json()["error"]
            self.code: str = error["code"]
            said = f"{error['code']}: {error['message']} ({error['request_id']})"
        except (ValueError, KeyError, TypeError):  # the answer of a proxy or of another service
            self.code, said = "unknown", response.text[:200]
        super().__init__(f"{response.status_code} {said}")
        self.final = response.status_code < 500 and response.status_code != 429


class EnrichmentClient:
    """Sends requests to the light or the heavy service, by the model's assignment. An async context manager."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment
        self._light = environment.get("ENRICHMENT_LIGHT_URL", "http://ai-enrichment-light:8096")
        self._heavy = environment.get("ENRICHMENT_URL", "http://ai-enrichment:8094")
        self._http = httpx.AsyncClient(timeout=_TIMEOUT_S)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    def url(self, route: str) -> str:
        """The URL of a route."""
        is_light = self._environment.get(ROUTES[route], "light") == "light"
        return f"{self._light if is_light else self._heavy}{route}"

    async def ask(self, route: str, image: bytes, **options: Any) -> Json:
        """Send one image and return the answer. options: `bbox`, `min_confidence`.

        Retries errors that may pass, after the wait in Retry-After. Raises EnrichmentError for a final error or after
        the last retry, httpx.HTTPError if the service can't be reached.
        """
        request = {"image_base64": base64.b64encode(image).decode("ascii"), **options}
        for attempt in range(1, _ATTEMPTS + 1):
            response = await self._http.post(self.url(route), json=request)
            if response.is_success:
                answer: Json = response.json()
                return answer
            error = EnrichmentError(response)
            if error.final or attempt == _ATTEMPTS:
                raise error
            await asyncio.sleep(_pause(response))
        raise AssertionError("unreachable")


def _pause(response: httpx.Response) -> float:
    """Seconds until the next attempt: Retry-After, but at most 2; 1 if it is not a number."""
    asked = response.headers.get("Retry-After", "")
    return min(float(asked), 2.0) if asked.isdecimal() else 1.0


def embedding_by_bentoml(url: str, image: bytes) -> list[float]:
    """A person's embedding, with BentoML's client."""
    with bentoml.SyncHTTPClient(url) as client:
        answer: Json = client.person_reid(image_base64=base64.b64encode(image).decode("ascii"))
        embedding: list[float] = answer["embedding"]
        return embedding


async def embeddings_by_bentoml(url: str, images: list[bytes]) -> list[list[float]]:
    """The embeddings of several persons. The service batches concurrent requests."""
    async with bentoml.AsyncHTTPClient(url) as client:
        texts = [base64.b64encode(image).decode("ascii") for image in images]
        answers = await asyncio.gather(*(client.person_reid(image_base64=text) for text in texts))
        return [answer["embedding"] for answer in answers]


async def main(pictures: list[Path]) -> None:
    """Print the number of people, the threats and the pet of each picture."""
    async with EnrichmentClient() as client:
        for picture in pictures:
            image = picture.read_bytes()
            routes = ("/pose-analyze", "/threat-detect", "/pet-classify")
            poses, threats, pet = await asyncio.gather(*(client.ask(route, image) for route in routes))
            seen = [threat["class"] for threat in threats["threats_detected"]]
            animal = pet["pet_type"] if pet["is_household_pet"] else "no"
            print(f"{picture.name}: {poses['num_people']} people, threats: {seen or 'none'}, {animal} pet")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    asyncio.run(main([Path(argument) for argument in sys.argv[1:]]))
