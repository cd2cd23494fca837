"""One server with the sample app for all tests of this folder; those that end or restart a server have their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .client import ModalServer
from .fixture import forget_client, use

SAMPLE = "tests.modal_server.sample_app"


@pytest.fixture(scope="package")
def sample_server() -> Iterator[ModalServer]:
    options = ("--grace", "5", "--cancel-grace", "1", "--failed-starts", "1")
    with pytest.MonkeyPatch.context() as patch, ModalServer.start(*options) as server:
        use(server, patch)
        server.secret("sample-secret", SAMPLE_TOKEN="hush")
        server.deploy(SAMPLE)
        yield server
    forget_client()


@pytest.fixture
def server(sample_server: ModalServer) -> Iterator[ModalServer]:
    yield sample_server
    sample_server.clear_faults()
