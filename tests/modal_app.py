"""The app of `infra.modal_app` on the server of `tests.modal_server`, with real models in its containers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from infra.settings import get_settings
from tests import media
from tests.modal_server import ModalServer
from tests.modal_server.fixture import forget_client, use

ENV = {
    "STENO_MODEL": "tiny.en",
    "STENO_OFFLINE": "true",
    "STENO_COMPUTE__BACKEND": "modal",
    "STENO_COMPUTE__DEVICE": "cpu",
    "STENO_RETRY__DELAY": "0.01",
    "STENO_MODAL__SCALEDOWN_WINDOW": "600",
    "STENO_MODAL__RECONNECT": "20",
    "STENO_MODAL__ONE_CONTAINER_BELOW": "0",
    "HF_TOKEN": "",
}


@contextlib.contextmanager
def deployed(models_dir: Path, *options: str) -> Iterator[ModalServer]:
    """A server with the app, the weights of this machine on its volume, and this process as its client."""
    with pytest.MonkeyPatch.context() as patch, ModalServer.start("--cancel-grace", "3", *options) as server:
        use(server, patch)
        for name, value in (ENV | {"STENO_MODELS_DIR": str(models_dir)}).items():
            patch.setenv(name, value)
        get_settings.cache_clear()
        server.deploy("infra.modal_app")
        server.seed("stenoflow-weights", models_dir, "/models")
        yield server
    forget_client()
    get_settings.cache_clear()


def call(path: Path, seed: int = 0, start: float = 6.0, seconds: float = 10.0) -> Path:
    """A stretch of the real call; each seed gives other samples, and so another recording, of the same words."""
    rate = media.RATE
    samples = media.speech()[round(start * rate) : round((start + seconds) * rate)]
    hiss = np.random.default_rng(seed).normal(0, 1e-4, len(samples))
    soundfile.write(path, np.clip(samples + hiss, -1, 1), rate, subtype="PCM_16")
    return path


def bursts(path: Path, count: int) -> Path:
    """Two seconds of talk at a time, with pauses that end a chunk: as many chunks as bursts."""
    rate, pause = media.RATE, np.zeros(5 * media.RATE, dtype=np.float32)
    starts = [6.5, 8.5, 10.5, 12.5, 14.5, 16.5, 18.5]
    pieces = [media.speech()[round(start * rate) : round((start + 2.0) * rate)] for start in starts]
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.concatenate([part for i in range(count) for part in (pieces[i % len(pieces)], pause)])
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return path


def attempts(server: ModalServer, since: int = 0) -> list[tuple[str, list[str]]]:
    """For every call, what became of each time it was begun."""
    return [(each["function"], [one["outcome"] for one in each["attempts"]]) for each in server.calls[since:]]


def unfinished(server: ModalServer) -> list[dict[str, Any]]:
    return [each for each in server.calls if each["state"] in ("pending", "running")]


async def until(condition: Any, seconds: float = 60) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while not await asyncio.to_thread(condition):
        assert asyncio.get_running_loop().time() < deadline, "this took too long"
        await asyncio.sleep(0.05)
