"""Whether a container's GPU really works: Whisper's encoder in CTranslate2, then a convolution in cuDNN.

In this order, since the app's calls run CTranslate2 without torch, which would bring cuBLAS with it.
"""

from __future__ import annotations

import time
from typing import Any

from infra.on_modal.contract import code_fingerprint
from infra.on_modal.weights import host_here, runtime_here
from infra.on_modal.worker import gpu_name
from infra.settings import get_settings
from stenoflow.errors import StenoError


def smoke() -> dict[str, Any]:
    """Facts of this container as plain JSON, and under `problems` a sentence for each thing that does not work."""
    problems: list[str] = []
    facts: dict[str, Any] = {"gpu": gpu_name(), "code": code_fingerprint(), "problems": problems}
    for name, probe in (("encoder", _encoder), ("convolution", _convolution)):
        began = time.perf_counter()
        try:
            facts |= probe()
        except StenoError as error:
            problems.append(f"{name}: {error.message}")
        except Exception as error:
            # Here the libraries' own words are what is looked for, and they never saw a recording.
            problems.append(f"{name}: {type(error).__name__}: {str(error).splitlines()[0][:300] if str(error) else ''}")
        facts[f"{name}_seconds"] = round(time.perf_counter() - began, 2)
    if get_settings().modal.gpu and not facts.get("cuda"):
        problems.append("The app requests a GPU, but torch finds none in its container.")
    return facts


def _convolution() -> dict[str, Any]:
    """The layer that wav2vec2 and the speaker networks begin with; cuDNN is loaded here, or fails to be."""
    import torch

    cuda = torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"
    with torch.inference_mode():
        layer = torch.nn.Conv1d(80, 256, 3, padding=1).to(device)
        out = layer(torch.randn(4, 80, 998, device=device))
        finite = bool(torch.isfinite(out).all().item())
    if not finite:
        raise StenoError("A convolution returned NaN or infinite numbers; the driver or cuDNN is broken.")
    version = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None  # type: ignore[no-untyped-call]
    return {"cuda": cuda, "torch": str(torch.__version__), "cudnn": int(version) if version else None}


def _encoder() -> dict[str, Any]:
    """A second of silence with the model that the settings name: of Whisper's, what its encoder makes of it."""
    import ctranslate2
    import numpy as np

    from speech.asr import load
    from speech.asr.whisper import Whisper
    from speech.audio import InMemoryRecording
    from speech.models import resolve_asr
    from speech.schema import AsrParams, Chunk, Region

    settings = get_settings()
    resolved = resolve_asr(settings.model, None, models_dir=settings.models_path, offline=settings.offline, host=host_here())
    engine = load(resolved, runtime_here())
    if not isinstance(engine, Whisper):
        second = Chunk(start=0.0, end=1.0, regions=(Region(start=0.0, end=1.0),))
        engine.transcribe(InMemoryRecording(np.zeros(16_000, np.int16)), [second], AsrParams(language="en"), 1, lambda _: None)
        return {"model": resolved.name, "device": engine.device}
    model = engine.weights.model
    features = model.feature_extractor(np.zeros(16_000, np.float32), padding=29 * 16_000)[:, :3000]
    encoded = model.encode(features.astype(np.float32))
    return {
        "ctranslate2": str(ctranslate2.__version__),
        "whisper": resolved.name,
        "device": str(model.model.device),
        "compute_type": str(model.model.compute_type),
        "encoded": [int(size) for size in encoded.shape],
    }
