"""An example backend of ai-enrichment-light: by its client, which routes between two services, or by BentoML's client.

usage: python examples/backend_client.py PICTURE [PICTURE …]
"""

from __future__ import annotations

import asyncio
import base64
import sys
from pathlib import Path
from typing import Any

import bentoml

from enrichment_client import AsyncClient


def embedding_by_bentoml(url: str, image: bytes) -> list[float]:
    """A person's embedding, with BentoML's client."""
    with bentoml.SyncHTTPClient(url) as client:
        answer: dict[str, Any] = client.person_reid(image_base64=base64.b64encode(image).decode("ascii"))
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
    async with AsyncClient.from_env() as client:
        for picture in pictures:
            poses, threats, pet = await asyncio.gather(
                client.pose(picture), client.threat(picture), client.pet(picture)
            )
            seen = [threat.class_name for threat in threats.threats_detected]
            animal = pet.pet_type if pet.is_household_pet else "no"
            print(f"{picture.name}: {poses.num_people} people, threats: {seen or 'none'}, {animal} pet")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    asyncio.run(main([Path(argument) for argument in sys.argv[1:]]))
