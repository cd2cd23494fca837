"""Callers of WhisperX services: what their requests may still say, although nothing here depends on it.

Those services ignored what they did not know, so their clients send the parameters of WhisperX's own functions along. Here
a field that is not known is refused, since it may be a misspelt one; these are known, and answered with a `Warning`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

IGNORED = frozenset(
    {
        # How the engine is run is the operator's business.
        "compute_type",
        "device",
        "device_index",
        "download_root",
        "model_dir",
        "threads",
        "verbose",
        "print_progress",
        "combined_progress",
        # Credentials for gated models: the worker has its own.
        "hf_token",
        "use_auth_token",
        # WhisperX's parameters of decoding, voice activity, alignment and diarization, for which there is one way here.
        "asr_options",
        "beam_size",
        "best_of",
        "patience",
        "length_penalty",
        "temperature",
        "temperature_increment_on_fallback",
        "compression_ratio_threshold",
        "logprob_threshold",
        "no_speech_threshold",
        "condition_on_previous_text",
        "suppress_tokens",
        "suppress_numerals",
        "fp16",
        "chunk_size",
        "vad_filter",
        "vad_method",
        "vad_model",
        "vad_onset",
        "vad_offset",
        "vad_options",
        "interpolate_method",
        "return_char_alignments",
        "fill_nearest",
        "diarize_model",
        "return_embeddings",
        "speaker_embeddings",
        "sample_rate",
    }
)


def understood(value: Any) -> tuple[Any, list[str]]:
    """A submission without what is ignored, and the names of that; whatever is no object is left to be refused."""
    if not isinstance(value, Mapping):
        return value, []
    ignored = sorted(name for name in value if name in IGNORED)
    return {name: given for name, given in value.items() if name not in IGNORED}, ignored


def warning(ignored: Sequence[str]) -> dict[str, str]:
    """The header that names what was ignored (RFC 7234, 5.5: a miscellaneous persistent warning)."""
    return {"Warning": f'299 stenoflow "Ignored: {", ".join(ignored)}"'} if ignored else {}
