"""Forced alignment with a wav2vec2 CTC model, giving WhisperX's times (`whisperx/alignment.py` 3.8.6) without its Python loops.

The trellis, the wildcard for characters the model does not know, the backtracking and the merging of repeats are WhisperX's;
a test holds the two equal. What differs: no download of a sentence splitter, and every word ends up with a time.
"""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from speech.audio import Recording
from speech.files import file_lock
from speech.languages import WITHOUT_SPACES
from speech.loaded import Room, bytes_in, load_once
from speech.registry import Resolved, torchaudio_file
from speech.runtime import cpu_threads, resolve_device
from speech.schema import SAMPLE_RATE, AsrResult, AsrSegment, RuntimeOptions
from speech.weights import is_as_made, is_noted, note_hashes, weights_folder
from stenoflow.errors import ModelUnavailable, UnknownModel
from stenoflow.types import Word

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float32]
_SHORTEST = 400
"""Samples; wav2vec2's receptive field."""


class Aligner:
    """A loaded wav2vec2 model and its alphabet."""

    def __init__(self, model: torch.nn.Module, metadata: dict[str, Any], device: str) -> None:
        self.model = model
        self.device = device
        self.torchaudio = metadata["type"] == "torchaudio"
        self.alphabet: dict[str, int] = metadata["dictionary"]
        self.spaced = metadata["language"] not in WITHOUT_SPACES
        self.blank = next((code for char, code in self.alphabet.items() if char in ("[pad]", "<pad>")), 0)

    def words(self, segment: AsrSegment, recording: Recording) -> list[Word] | None:
        """The chunk's words timed by the model, or None when they cannot be aligned with its audio."""
        texts = [word.word for word in segment.words]
        separator = "|" if self.spaced and "|" in self.alphabet else ""
        characters = list(separator.join(text.lower() for text in texts))
        if not characters:
            return None
        samples = recording.read(round(segment.start * SAMPLE_RATE), round(segment.end * SAMPLE_RATE))
        emission = self.emissions(samples)
        emission, tokens = with_wildcard(emission, characters, self.alphabet, self.blank)
        spans = character_spans(emission, tokens, self.blank)
        if spans is None:
            return None
        seconds = (len(samples) / SAMPLE_RATE) / len(emission)
        timed: list[Word] = []
        at = 0
        for text in texts:
            mine = spans[at : at + len(text.lower())]
            at += len(text.lower()) + len(separator)
            start, end = segment.start + mine[0][0] * seconds, segment.start + mine[-1][1] * seconds
            score = float(np.mean([span[2] for span in mine]))
            timed.append(Word(word=text, start=round(start, 3), end=round(end, 3), score=round(score, 3), timing="wav2vec2"))
        return timed

    def emissions(self, samples: Floats) -> Floats:
        """(samples,) → (frames, alphabet) log-probabilities."""
        import torch

        padded = np.pad(samples, (0, max(0, _SHORTEST - len(samples))))
        with torch.inference_mode():
            waveform = torch.from_numpy(padded)[None].to(self.device)
            logits = self.model(waveform)[0] if self.torchaudio else self.model(waveform).logits
            out: Floats = torch.log_softmax(logits.float(), dim=-1)[0].cpu().numpy()
        return out


def with_wildcard(
    emission: Floats, characters: Sequence[str], alphabet: dict[str, int], blank: int
) -> tuple[Floats, NDArray[np.int64]]:
    """The emissions and token numbers of a text; characters outside the alphabet match any sound, through an extra column.

    The extra column holds the best score of any token but the blank (WhisperX #1104: digits would have no time otherwise).
    """
    if any(character not in alphabet for character in characters):
        sounds = np.delete(emission, blank, axis=1).max(axis=1)
        emission = np.concatenate([emission, sounds[:, None]], axis=1)
    wildcard = emission.shape[1] - 1
    return emission, np.array([alphabet.get(character, wildcard) for character in characters], dtype=np.int64)


def character_spans(emission: Floats, tokens: NDArray[np.int64], blank: int) -> list[tuple[int, int, float]] | None:
    """(first frame, one past the last, mean probability) of every token on the best path, or None when there is none."""
    trellis = _trellis(emission, tokens, blank)
    path = _backtrack(trellis, emission, tokens, blank)
    if path is None:
        return None
    spans: list[tuple[int, int, float]] = []
    first = 0
    for i in range(1, len(path) + 1):
        if i == len(path) or path[i][0] != path[first][0]:
            score = sum(step[2] for step in path[first:i]) / (i - first)
            spans.append((path[first][1], path[i - 1][1] + 1, score))
            first = i
    return spans if len(spans) == len(tokens) else None


def _trellis(emission: Floats, tokens: NDArray[np.int64], blank: int) -> Floats:
    """(frames + 1, tokens + 1) best log-probability of having said the first j tokens after t frames."""
    frames, count = len(emission), len(tokens)
    trellis = np.empty((frames + 1, count + 1), dtype=np.float32)
    trellis[0, 0] = 0
    trellis[1:, 0] = np.cumsum(emission[:, blank])
    trellis[0, -count:] = -np.inf
    trellis[-count:, 0] = np.inf
    said = emission[:, tokens]
    stay = emission[:, blank]
    for t in range(frames):
        np.maximum(trellis[t, 1:] + stay[t], trellis[t, :-1] + said[t], out=trellis[t + 1, 1:])
    return trellis


def _backtrack(trellis: Floats, emission: Floats, tokens: NDArray[np.int64], blank: int) -> list[tuple[int, int, float]] | None:
    """(token, frame, probability) along the best path, from the first token's first frame on."""
    j = trellis.shape[1] - 1
    path: list[tuple[int, int, float]] = []
    for t in range(int(np.argmax(trellis[:, j])), 0, -1):
        stayed = trellis[t - 1, j] + emission[t - 1, blank]
        changed = trellis[t - 1, j - 1] + emission[t - 1, tokens[j - 1]]
        moved = changed > stayed
        path.append((j - 1, t - 1, float(np.exp(emission[t - 1, tokens[j - 1] if moved else blank]))))
        if moved:
            j -= 1
            if j == 0:
                return path[::-1]
    return None


def load(model: Resolved, asr: AsrResult, runtime: RuntimeOptions) -> Aligner:
    """The aligner of the recording's language (`speech.align.Aligner`)."""
    return load_aligner(model, asr.language, runtime.models_path, runtime)


def load_aligner(model: Resolved, language: str, models_dir: Path, runtime: RuntimeOptions) -> Aligner:
    """The wav2vec2 model of `whisperx.load_align_model`, from a folder, torchaudio's bundle or the hub, once per process.

    Raises GatedModel, UnknownModel or ModelUnavailable.
    """
    device, threads = resolve_device(runtime), cpu_threads(runtime)
    return load_once(
        ("wav2vec2", model.name, model.revision, language, device),
        lambda room: _load(model, language, models_dir, device, threads, room),
        device=device,
    )


def _load(model: Resolved, language: str, models_dir: Path, device: str, threads: int, room: Room) -> Aligner:
    import torch

    torch.set_num_threads(threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if model.origin == "hub" and "/" not in model.location:
            network, metadata = _bundle(model.location, language, models_dir)
            room(sum(weights.numel() * weights.element_size() for weights in network.parameters()))
            return Aligner(network.to(device).eval(), metadata, device)
        from whisperx.alignment import load_align_model

        folder = weights_folder(model, models_dir)
        _require_wav2vec2(folder, model)
        room(bytes_in(folder))
        try:
            network, metadata = load_align_model(language, device, model_name=str(folder), model_cache_only=True)
        except ValueError as error:
            raise UnknownModel(f"{model.name} is not a wav2vec2 CTC model that transformers can load.") from error
    return Aligner(network.eval(), metadata, device)


def _bundle(name: str, language: str, models_dir: Path) -> tuple[torch.nn.Module, dict[str, Any]]:
    """torchaudio's model and alphabet, as `whisperx.load_align_model` gives them, but unpickled as weights alone; its checkpoint is
    fetched when it is not there, or damaged."""
    import torchaudio

    bundle = torchaudio.pipelines.__dict__[name]
    checkpoint = torchaudio_file(name, models_dir)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)

    def load() -> torch.nn.Module:
        fetching = {"model_dir": str(checkpoint.parent), "weights_only": True}
        network: torch.nn.Module = bundle.get_model(dl_kwargs=fetching)
        return network

    try:
        with file_lock(checkpoint.with_suffix(".lock")):
            if is_noted(checkpoint) and not is_as_made(checkpoint, (checkpoint.suffix,), models_dir):
                checkpoint.unlink(missing_ok=True)
            try:
                network = load()
            except (RuntimeError, pickle.UnpicklingError, EOFError):  # damaged, by an earlier version that noted no hash
                checkpoint.unlink(missing_ok=True)
                network = load()
            note_hashes(checkpoint, (checkpoint.suffix,))
    except OSError as error:  # torchaudio downloads with urllib, whose errors are OSErrors
        raise ModelUnavailable(
            f"The alignment model {name} is not on this machine and could not be downloaded",
            cure="check the network, or use --align-model attention",
        ) from error
    alphabet = {character.lower(): place for place, character in enumerate(bundle.get_labels())}
    return network, {"language": language, "dictionary": alphabet, "type": "torchaudio"}


def _require_wav2vec2(folder: Path, model: Resolved) -> None:
    """Raise UnknownModel unless the folder's configuration is a wav2vec2's; whisperx prints to standard output otherwise."""
    try:
        kind = json.loads((folder / "config.json").read_text()).get("model_type")
    except (OSError, ValueError, AttributeError):
        kind = None
    if kind != "wav2vec2":
        raise UnknownModel(f"{model.name} is not a wav2vec2 CTC model that transformers can load.")
