"""The numpy filter banks are Kaldi's, as torchaudio computes them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchaudio.compliance import kaldi

from speech.features import FbankOptions, fbank
from tests import media


@pytest.mark.parametrize(
    "options", [FbankOptions("povey", 1.0), FbankOptions("hamming", 32768.0)], ids=["campplus", "wespeaker"]
)
def test_equals_kaldis(options: FbankOptions) -> None:
    samples = media.speech()[6 * 16_000 : 16 * 16_000]
    expected = kaldi.fbank(
        torch.from_numpy(samples * np.float32(options.scale))[None],
        num_mel_bins=80,
        sample_frequency=16_000,
        window_type=options.window,
        dither=0.0,
        use_energy=False,
    ).numpy()
    found = fbank(samples, options)
    assert found.shape == expected.shape == (998, 80)
    assert np.abs(found - expected).max() < 2e-3
    assert np.abs(found - expected).mean() < 1e-5


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (399, 0), (400, 1), (559, 1), (560, 2)])
def test_only_whole_frames_count(samples: int, frames: int) -> None:
    assert fbank(media.speech()[:samples], FbankOptions()).shape == (frames, 80)


def test_silence_is_finite() -> None:
    assert np.isfinite(fbank(np.zeros(1600, dtype=np.float32), FbankOptions())).all()
