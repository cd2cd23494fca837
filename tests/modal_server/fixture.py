"""The server as pytest fixtures: `from tests.modal_server.fixture import modal_server` in a conftest or test module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .client import FOREIGN, ModalServer


def use(server: ModalServer, patch: pytest.MonkeyPatch) -> None:
    """Make the Modal client of this very process talk to the server, and to no other that it knew."""
    for name, value in server.env.items():
        patch.setenv(name, value)
    for name in FOREIGN:
        patch.delenv(name, raising=False)
    forget_client()


def forget_client() -> None:
    """Modal keeps one client per process: let the next call connect anew, with the environment as it is then."""
    from modal.client import Client

    Client._set_env_client(None)


@pytest.fixture(scope="module")
def modal_server() -> Iterator[ModalServer]:
    """A server of this module's own, which the client in this process uses too; it and all its containers end with it."""
    with pytest.MonkeyPatch.context() as patch, ModalServer.start() as server:
        use(server, patch)
        yield server
    forget_client()
