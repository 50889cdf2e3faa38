"""One link for each runner service, whichever way leads to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pytest

from api import links
from api.embedded import EmbeddedLink
from api.link import Link
from api.remote import RemoteLink
from models.catalogue import ModelName
from models.state import State
from runners import Services
from settings import Settings, get_settings
from tests.api.test_health import status


@dataclass(frozen=True)
class Service:
    name: str


FIRST, SECOND = Service("first"), Service("second")
SERVICES = cast(Services, {"pose_estimator": FIRST, "person_reid": SECOND, "threat_detector": FIRST})
PRELOAD: list[ModelName] = ["person_reid", "threat_detector", "pet_classifier"]


class Runner:
    """A runner of whatever is asked for, whose models are not loaded."""

    def status(self) -> Any:
        return {"models": {name: status(State.UNLOADED) for name in SERVICES}}


def embedded() -> Mapping[ModelName, Link]:
    return links.embedded(SERVICES, PRELOAD, {"first": cast(Any, Runner()), "second": cast(Any, Runner())})


def settings(preload: Sequence[ModelName]) -> Settings:
    return get_settings().model_copy(update={"preload": preload})


def remote() -> Mapping[ModelName, Link]:
    async def call(method: str, *args: Any) -> Any: ...

    return links.remote(SERVICES, settings(PRELOAD), {"first": call, "second": call})


@pytest.mark.parametrize(("make", "kind"), [(embedded, EmbeddedLink), (remote, RemoteLink)])
async def test_models_of_one_service_share_a_link_that_knows_them(
    make: Callable[[], Mapping[ModelName, Link]], kind: type
) -> None:
    made = make()
    assert list(made) == list(SERVICES)
    assert {type(link) for link in made.values()} == {kind}
    assert made["pose_estimator"] is made["threat_detector"]
    assert made["pose_estimator"] is not made["person_reid"]
    assert {link.name: link.models for link in made.values()} == {
        "first": ("pose_estimator", "threat_detector"),
        "second": ("person_reid",),
    }
    # Each waits for the preloaded models of its own alone.
    assert {link.name: cast(Any, link)._preload for link in made.values()} == {
        "first": ("threat_detector",),
        "second": ("person_reid",),
    }


async def test_each_service_has_its_own_runner_or_call() -> None:
    async def one(method: str, *args: Any) -> Any: ...
    async def other(method: str, *args: Any) -> Any: ...

    ways = links.remote(SERVICES, settings([]), {"first": one, "second": other})
    assert [cast(Any, ways[name])._call for name in ("pose_estimator", "person_reid")] == [one, other]
    runners: Any = {"first": Runner(), "second": Runner()}
    inside = links.embedded(SERVICES, [], runners)
    assert cast(Any, inside["pose_estimator"])._runner is runners["first"]
    assert cast(Any, inside["person_reid"])._runner is runners["second"]
