"""A scripted service behind httpx.MockTransport, asked by either client."""

from __future__ import annotations

import asyncio
import email
import email.policy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import pytest

from enrichment_client import AsyncClient, Client

LIGHT: Final = "http://light"
HEAVY: Final = "http://heavy"
PET: Final = {"pet_type": "dog", "breed": "unknown", "confidence": 0.9, "is_household_pet": True}

Answer = httpx.Response | Exception


def error(status: int, code: str, headers: Mapping[str, str] | None = None, **more: Any) -> httpx.Response:
    body = {"error": {"code": code, "message": f"a message of {code}", "request_id": "r1"} | more}
    return httpx.Response(status, json=body, headers=headers)


def fields(request: httpx.Request) -> dict[str, bytes]:
    """The parts of a form by name."""
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + request.content, policy=email.policy.HTTP)
    found = {}
    for part in message.iter_parts():
        payload = part.get_payload(decode=True)
        assert isinstance(payload, bytes)
        found[str(part.get_param("name", header="content-disposition"))] = payload
    return found


@dataclass
class Service:
    """Gives its answers one after the other, the last one for ever. pauses: what the client waited, in seconds."""

    answers: list[Answer]
    asked: list[httpx.Request] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    def paths(self) -> list[str]:
        return [f"{request.url.scheme}://{request.url.host}{request.url.path}" for request in self.asked]


#: Asks a service by one of the clients: (handler, method, arguments, the client's options).
Ask = Callable[..., Any]


def ask_sync(service: Callable[[httpx.Request], httpx.Response], method: str, *arguments: Any, **options: Any) -> Any:
    with Client(**{"base_url": LIGHT} | options, transport=httpx.MockTransport(service)) as client:
        return getattr(client, method)(*arguments)


def ask_async(service: Callable[[httpx.Request], httpx.Response], method: str, *arguments: Any, **options: Any) -> Any:
    async def ask() -> Any:
        async with AsyncClient(**{"base_url": LIGHT} | options, transport=httpx.MockTransport(service)) as client:
            return await getattr(client, method)(*arguments)

    return asyncio.run(ask())


def record_pauses(monkeypatch: pytest.MonkeyPatch, service: Service) -> None:
    """Take the waits of both clients instead of waiting."""

    async def sleep(seconds: float) -> None:
        service.pauses.append(seconds)

    monkeypatch.setattr("enrichment_client.client.time.sleep", service.pauses.append)
    monkeypatch.setattr("enrichment_client.client.asyncio.sleep", sleep)
