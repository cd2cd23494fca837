"""The speaker networks in PyTorch, for GPUs: what `speech.diarize.networks` runs there, in half precision."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from speech.checkpoints import read_checkpoint
from speech.pieces import Pieces
from speech.runtime import log_errors_only, not_installed

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float32]


class TorchNetwork:
    """A module on a device: (batch, …) float32 in, (batch, …) float32 out, in as few pieces as the device's memory holds."""

    def __init__(self, module: torch.nn.Module, device: str) -> None:
        import torch

        self.device = device
        self.module = module.eval().to(device)
        self._torch = torch
        self._pieces = Pieces(device)

    def send(self, batch: Floats) -> torch.Tensor:
        tensor = self._torch.from_numpy(np.ascontiguousarray(batch, dtype=np.float32))
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device != "cpu" else tensor

    def __call__(self, batch: torch.Tensor) -> Floats:
        torch = self._torch
        with torch.inference_mode(), torch.autocast(self.device, dtype=torch.float16):
            parts = self._pieces.each(batch, lambda piece: self.module(piece).float().cpu().numpy())
        return np.concatenate(parts) if len(parts) > 1 else parts[0]


def segmentation(path: Path) -> torch.nn.Module:
    """(batch, samples) → (batch, frames, classes) log-probabilities, from a checkpoint of pyannote.audio."""
    model = _pyannote_model(path)
    return _module(lambda x: model(x.unsqueeze(1)), model)


def trunk(path: Path, network: str) -> torch.nn.Module:
    """(batch, frames, mels) → (batch, channels, frames): CAM++, or ResNet34 from a checkpoint of pyannote.audio."""
    if network == "campplus":
        from speech.diarize.campplus import load_campplus

        campplus = load_campplus(path)
        return _module(campplus.trunk, campplus)
    resnet = _pyannote_model(path).resnet
    return _module(lambda x: resnet.forward_frames(x).flatten(1, -2), resnet)


def _module(forward: Any, owner: torch.nn.Module) -> torch.nn.Module:
    """A module that runs `forward` on the parameters of `owner`."""
    import torch

    class Part(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.owner = owner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = forward(x)
            return out

    return Part().eval()


def _pyannote_model(path: Path) -> Any:
    """A pyannote checkpoint. Its telemetry stays off, and its complaint about a missing ffmpeg is not ours (PyAV decodes).

    pyannote.audio unpickles whatever a checkpoint names, so it is read without being unpickled first.
    """
    os.environ.setdefault("PYANNOTE_METRICS_ENABLED", "0")
    read_checkpoint(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from pyannote.audio import Model
        except ImportError as error:
            raise not_installed([str(error.name)], "gpu") from None
        log_errors_only("lightning.pytorch", "pytorch_lightning")
        return Model.from_pretrained(str(path)).eval()
