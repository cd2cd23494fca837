"""The REST API as a web endpoint of the app: an image without models, and the application, by its name."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from infra.on_modal.image import container_env, uv_version
from infra.settings import StenoSettings
from stenoflow.errors import InvalidOption
from stenoflow.requirements import requirements

if TYPE_CHECKING:
    import modal

APPLICATION = "api.service:application"
"""Where it is made; this room knows it by name only."""
SOURCES = ("speech", "infra", "tasks", "flows", "api", "stenoflow")
REQUESTS = 100
"""Requests that one container answers at the same time: they wait, for Prefect, for the store, for jobs."""


def build_api_image(settings: StenoSettings) -> modal.Image:
    """What the orchestrator runs on. Raises InvalidOption where containers could not reach the store."""
    import modal

    local = modal.is_local()
    if local and "://" not in settings.store_url:
        raise InvalidOption(
            "The REST API on Modal needs a store that its workers share: set STENO_STORE=s3://bucket/prefix, and deploy again."
        )
    return (
        modal.Image.debian_slim(python_version=f"{sys.version_info.major}.{sys.version_info.minor}")
        .uv_pip_install(
            requirements=[str(requirements("base.txt"))],
            extra_options="--require-hashes",
            uv_version=uv_version() if local else None,
        )
        .env(container_env(settings) | api_env(settings))
        .add_local_python_source(*SOURCES)
    )


def api_env(settings: StenoSettings) -> dict[str, str]:
    """Settings of the service; it is on the internet, so it wants keys, and there are no models for audio chunks."""
    served = settings.api.model_copy(update={"require_keys": True, "chunk_workers": 0, "warm": False})
    return {"STENO_STORE": settings.store, "STENO_API": served.model_dump_json()}


def application() -> Any:
    """The ASGI application."""
    module, name = APPLICATION.split(":")
    return getattr(import_module(module), name)()
