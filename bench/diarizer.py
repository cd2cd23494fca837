"""pyannote's own SpeakerDiarization pipeline on the pip-installed weights: the diarization that WhisperX would run.

pyannote downloads its embedding and PLDA from the hub. Here CAM++ stands in for the embedding, through the same interface,
and agglomerative clustering, which needs no PLDA, for VBx.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.weights import embedding_weights, segmentation_weights


def pyannote_pipeline(clustering: Mapping[str, Any]) -> Any:
    """The pipeline, ready to be called with `{"waveform": (1, samples), "sample_rate": 16000}`."""
    from pyannote.audio import Model
    from pyannote.audio.core.plda import PLDA
    from pyannote.audio.pipelines import speaker_diarization

    embedding = _campplus()
    original = speaker_diarization.PretrainedSpeakerEmbedding
    # The constructor builds the embedding from a name; ours exists already.
    speaker_diarization.PretrainedSpeakerEmbedding = lambda *_, **__: embedding
    try:
        pipeline = speaker_diarization.SpeakerDiarization(
            segmentation=Model.from_pretrained(segmentation_weights()),
            embedding="campplus",
            # Required by the constructor, unused by agglomerative clustering.
            plda=PLDA.__new__(PLDA),
            clustering="AgglomerativeClustering",
            embedding_batch_size=8,
            segmentation_batch_size=8,
        )
    finally:
        speaker_diarization.PretrainedSpeakerEmbedding = original
    return pipeline.instantiate({"segmentation": {"min_duration_off": 0.0}, "clustering": dict(clustering)})


def _campplus() -> Any:
    import numpy as np
    import torch
    from pyannote.audio.core.inference import BaseInference
    from torch.nn import functional
    from torchaudio.compliance.kaldi import fbank

    from speech.diarize.campplus import EMBEDDING_DIMENSION, load_campplus
    from speech.features import MEL_BINS

    network = load_campplus(embedding_weights())

    class CamPlusPlusEmbedding(BaseInference):  # type: ignore[misc]
        """(batch, 1, samples) and masks (batch, frames) → (batch, 192); NaN where a mask is empty."""

        sample_rate = 16_000
        dimension = EMBEDDING_DIMENSION
        metric = "cosine"
        min_num_samples = 8_000

        def to(self, device: Any) -> Any:
            network.to(device)
            return self

        @torch.inference_mode()
        def __call__(self, waveforms: Any, masks: Any = None) -> Any:
            features = [fbank(wave * 32768, num_mel_bins=MEL_BINS, sample_frequency=16_000) for wave in waveforms]
            trunk = network.trunk(torch.stack([feature - feature.mean(0) for feature in features]))
            weights = torch.ones(len(trunk), trunk.shape[-1]) if masks is None else self._resized(masks, trunk.shape[-1])
            total = weights.sum(1, keepdim=True)
            share = (weights / total.clamp(min=1e-8)).unsqueeze(1)
            mean = (trunk * share).sum(-1)
            spread = ((trunk - mean.unsqueeze(-1)) ** 2 * share).sum(-1)
            unbiased = spread * (total / (total - 1).clamp(min=1))
            embeddings = network.project(torch.cat([mean, unbiased.clamp(min=1e-10).sqrt()], 1)).numpy()
            embeddings[(total < 2).squeeze(1).numpy()] = np.nan
            return embeddings

        @staticmethod
        def _resized(masks: Any, frames: int) -> Any:
            return functional.interpolate(masks.unsqueeze(1).float(), size=frames, mode="nearest").squeeze(1)

    return CamPlusPlusEmbedding()
