from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.serving import fake
from tests.serving.document import Document
from tests.serving.server import Server, configuration, serving


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service as it is delivered, over the fake engine; all five models ready."""
    with serving(tmp_path_factory.mktemp("server"), {}) as running:
        yield running


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The same with the engines in a process of their own, as with a GPU."""
    with serving(tmp_path_factory.mktemp("shared"), {"ENRICHMENT_PLACEMENT": "shared"}) as running:
        yield running


@pytest.fixture(scope="session")
def document(server: Server) -> Document:
    """The OpenAPI document as it is served."""
    return Document.of(server.url)


@pytest.fixture(scope="session")
def client(server: Server, document: Document) -> Iterator[httpx.Client]:
    """Whatever it is answered has to be in the OpenAPI document."""
    with checking_client(server, document) as open_client:
        yield open_client


@pytest.fixture(scope="session")
def limited_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the fake store of the limited server finds out about its models."""
    return tmp_path_factory.mktemp("limited")


@pytest.fixture(scope="session")
def limited(limited_folder: Path) -> Iterator[Server]:
    """Narrow limits, and each model in another state.

    pose_estimator: untrained; threat_detector: absent; person_reid: loads on demand; pet_classifier: heavy;
    depth_estimator: can't be loaded.
    """
    notes = {
        fake.UNTRAINED: ("pose_estimator", ""),
        fake.ABSENT: ("threat_detector", ""),
        fake.SLOW: ("person_reid", "0.3"),
        fake.UNLOADABLE: ("depth_estimator", f"no such precision in {fake.SECRET}"),
    }
    environment = {"ENRICHMENT_PET_SERVICE": "heavy", "ENRICHMENT_ALLOW_UNTRAINED": "true"}
    for variable, (name, text) in notes.items():
        note = limited_folder / variable / name
        note.parent.mkdir()
        note.write_text(text, encoding="utf-8")
        environment[variable] = str(note.parent)
    narrow = {
        "limits.max_image_mib": 0.25,
        "limits.max_megapixels": 1,
        "limits.max_body_mib": 4,
        "limits.request_timeout_s": 4,
        "preload": ["pose_estimator", "threat_detector", "depth_estimator"],
    }
    environment["BENTOML_CONFIG"] = str(configuration(limited_folder, narrow))
    with serving(limited_folder, environment) as running:
        yield running


@pytest.fixture(scope="session")
def limited_document(limited: Server) -> Document:
    return Document.of(limited.url)


@pytest.fixture
def limited_client(limited: Server, limited_document: Document) -> Iterator[httpx.Client]:
    """As `client`."""
    with checking_client(limited, limited_document) as open_client:
        yield open_client


def checking_client(server: Server, document: Document) -> httpx.Client:
    hooks = {"response": [document.check_response]}
    return httpx.Client(base_url=server.url, timeout=30, event_hooks=hooks)
