"""One line to each runner service, wherever it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import bentoml

from api.embedded import Embedded, EmbeddedLink, Link
from api.link import RunnerLink
from models.catalogue import ModelName

Services: TypeAlias = Mapping[ModelName, bentoml.Service[Any]]
Call: TypeAlias = Callable[..., Any]  # BentoML's internal call, async: method, its arguments


def embedded(
    services: Services, preload: Sequence[ModelName], runners: Mapping[str, Embedded]
) -> dict[ModelName, Link]:
    """Model → its line to runners in this process. services: model → its runner service."""
    return _linked(services, preload, lambda name, models, first: EmbeddedLink(name, models, runners[name], first))


def remote(services: Services, preload: Sequence[ModelName], calls: Mapping[str, Call]) -> dict[ModelName, Link]:
    """Model → its line to runners in processes of their own. services: as of `embedded`; calls: by their names."""
    return _linked(services, preload, lambda name, models, first: RunnerLink(name, models, calls[name], first))


def _linked(
    services: Services,
    preload: Sequence[ModelName],
    link: Callable[[str, Sequence[ModelName], Sequence[ModelName]], Link],
) -> dict[ModelName, Link]:
    """link: name, models, those to be preloaded → the line. There is one for each service."""
    by_service: dict[str, Link] = {}
    for service in dict.fromkeys(services.values()):
        models = [model for model, its in services.items() if its is service]
        by_service[service.name] = link(service.name, models, [model for model in models if model in preload])
    return {model: by_service[service.name] for model, service in services.items()}
