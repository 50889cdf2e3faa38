"""Makes the links from the API to the runner services: one for each, embedded or remote."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from api.embedded import Embedded, EmbeddedLink
from api.link import Link
from api.remote import Call, RemoteLink
from models.catalogue import ModelName
from runners import Services
from settings import Settings


def embedded(
    services: Services, preload: Sequence[ModelName], runners: Mapping[str, Embedded]
) -> dict[ModelName, Link]:
    """Return the link of each model, to runners in this process.

    services: model → its runner service. runners: the runner of each service, by the service's name.
    """
    return _linked(services, preload, lambda name, models, first: EmbeddedLink(name, models, runners[name], first))


def remote(services: Services, settings: Settings, calls: Mapping[str, Call]) -> dict[ModelName, Link]:
    """Return the link of each model, to runners in processes of their own.

    services: model → its runner service. calls: the internal call of each service, by the service's name.
    """

    def link(name: str, models: Sequence[ModelName], first: Sequence[ModelName]) -> Link:
        return RemoteLink(name, models, calls[name], settings.watchdog, first)

    return _linked(services, settings.preload, link)


def _linked(
    services: Services,
    preload: Sequence[ModelName],
    link: Callable[[str, Sequence[ModelName], Sequence[ModelName]], Link],
) -> dict[ModelName, Link]:
    """Make one link for each service. link: (service's name, its models, those to preload) → the link."""
    by_service: dict[str, Link] = {}
    for service in dict.fromkeys(services.values()):
        models = [model for model, its in services.items() if its is service]
        by_service[service.name] = link(service.name, models, [model for model in models if model in preload])
    return {model: by_service[service.name] for model, service in services.items()}
