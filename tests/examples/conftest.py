from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serving.server import Server, serving


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service as it is delivered, over the fake engine; all five models ready."""
    with serving(tmp_path_factory.mktemp("server"), {}) as running:
        yield running
