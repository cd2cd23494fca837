"""Forced alignment with a wav2vec2 CTC model, giving WhisperX's times (`whisperx/alignment.py` 3.8.6) without its Python loops.

The trellis, the wildcard for characters the model does not know, the backtracking and the merging of repeats are WhisperX's, on
several chunks at once; a test holds the two equal. What differs: no download of a sentence splitter, and every word ends up with a time.
"""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Generator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from speech.audio import Recording
from speech.files import file_lock
from speech.languages import WITHOUT_SPACES
from speech.loaded import Room, bytes_in, load_once
from speech.pieces import Pieces
from speech.pipelined import pipelined
from speech.registry import Resolved, torchaudio_file
from speech.runtime import cpu_threads, log_errors_only, resolve_device
from speech.schema import SAMPLE_RATE, AsrResult, AsrSegment, RuntimeOptions
from speech.weights import is_as_made, is_noted, note_hashes, weights_folder
from stenoflow.errors import ModelUnavailable, UnknownModel
from stenoflow.types import Word

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float32]
_SHORTEST = 400
"""Samples; wav2vec2's receptive field."""
_BATCH = {"cpu": 1, "cuda": 16}
"""Chunks at once at most."""


class _Chunk(NamedTuple):
    """What is aligned of a segment."""

    segment: AsrSegment
    texts: list[str]
    characters: list[str]
    samples: Floats


class Aligner:
    """A loaded wav2vec2 model and its alphabet; on a GPU it computes in half precision, on several chunks at once."""

    def __init__(self, model: torch.nn.Module, metadata: dict[str, Any], device: str) -> None:
        self.model = model
        self.device = device
        self.torchaudio = metadata["type"] == "torchaudio"
        self.alphabet: dict[str, int] = metadata["dictionary"]
        self.spaced = metadata["language"] not in WITHOUT_SPACES
        self.blank = next((code for char, code in self.alphabet.items() if char in ("[pad]", "<pad>")), 0)
        self.separator = "|" if self.spaced and "|" in self.alphabet else ""
        self._pieces = Pieces(device)

    def words(self, segments: Sequence[AsrSegment], recording: Recording) -> Generator[list[Word] | None, None, None]:
        """Each chunk's words timed by the model, or None when they cannot be aligned with its audio."""
        size = _BATCH[self.device]
        batches = (
            [self._chunk(segment, recording) for segment in segments[first : first + size]]
            for first in range(0, len(segments), size)
        )
        yield from chain.from_iterable(
            pipelined(batches, lambda chunks: (chunks, self._heard(chunks)), lambda heard: self._timed(*heard), self.device)
        )

    def _chunk(self, segment: AsrSegment, recording: Recording) -> _Chunk:
        texts = [word.word for word in segment.words]
        samples = recording.read(round(segment.start * SAMPLE_RATE), round(segment.end * SAMPLE_RATE))
        return _Chunk(segment, texts, list(self.separator.join(text.lower() for text in texts)), samples)

    def _heard(self, chunks: Sequence[_Chunk]) -> list[Floats]:
        """The emissions of those of the chunks that have a text."""
        said = [chunk.samples for chunk in chunks if chunk.characters]
        return self.emissions(said) if said else []

    def _timed(self, chunks: Sequence[_Chunk], emissions: Sequence[Floats]) -> list[list[Word] | None]:
        said = [chunk for chunk in chunks if chunk.characters]
        found = [
            with_wildcard(emission, chunk.characters, self.alphabet, self.blank)
            for emission, chunk in zip(emissions, said, strict=True)
        ]
        spans = iter(character_spans([emission for emission, _ in found], [tokens for _, tokens in found], self.blank))
        frames = iter(map(len, emissions))
        return [self._words(chunk, next(spans), next(frames)) if chunk.characters else None for chunk in chunks]

    def _words(self, chunk: _Chunk, spans: Spans | None, frames: int) -> list[Word] | None:
        if spans is None:
            return None
        segment, seconds = chunk.segment, (len(chunk.samples) / SAMPLE_RATE) / frames
        timed: list[Word] = []
        at = 0
        for text in chunk.texts:
            mine = spans[at : at + len(text.lower())]
            at += len(text.lower()) + len(self.separator)
            start, end = segment.start + mine[0][0] * seconds, segment.start + mine[-1][1] * seconds
            score = float(np.mean([span[2] for span in mine]))
            timed.append(Word(word=text, start=round(start, 3), end=round(end, 3), score=round(score, 3), timing="wav2vec2"))
        return timed

    def emissions(self, waveforms: Sequence[Floats]) -> list[Floats]:
        """Of each (samples,), (frames, alphabet) log-probabilities."""
        import torch

        with torch.inference_mode(), torch.autocast(self.device, dtype=torch.float16, enabled=self.device != "cpu"):
            return list(chain.from_iterable(self._pieces.each(waveforms, self._emissions)))

    def _emissions(self, waveforms: Sequence[Floats]) -> list[Floats]:
        import torch

        padded = [np.pad(samples, (0, max(0, _SHORTEST - len(samples)))) for samples in waveforms]
        tensors = [torch.from_numpy(samples)[None].to(self.device) for samples in padded]
        if len(tensors) == 1:
            logits = self.model(tensors[0])[0] if self.torchaudio else self.model(tensors[0]).logits
            return [torch.log_softmax(logits.float(), dim=-1)[0].cpu().numpy()]
        base: Any = self.model if self.torchaudio else self.model.base_model
        # Each chunk alone as far as features, which some models normalise over a chunk's length.
        if self.torchaudio:
            features = [base.feature_extractor(tensor, None)[0][0] for tensor in tensors]
        else:
            features = [base.feature_extractor(tensor)[0].T for tensor in tensors]
        lengths = torch.tensor([len(each) for each in features], device=self.device)
        together = torch.nn.utils.rnn.pad_sequence(features, batch_first=True)
        logits = self._logits(base, together, lengths)
        scores = torch.log_softmax(logits.float(), dim=-1).cpu().numpy()
        return [row[:length] for row, length in zip(scores, lengths.tolist(), strict=True)]

    def _logits(self, base: Any, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """(batch, frames, alphabet) of padded features; no chunk attends to the padding."""
        import torch

        head: Any = self.model
        if self.torchaudio:
            encoded = base.encoder(features, lengths)
            out: torch.Tensor = encoded if base.aux is None else base.aux(encoded)
            return out
        inside = torch.arange(features.shape[1], device=self.device)[None] < lengths[:, None]
        hidden = base.feature_projection(features)[0]
        out = head.lm_head(base.encoder(hidden, attention_mask=inside)[0])
        return out


Spans = list[tuple[int, int, float]]
"""(first frame, one past the last, mean probability) of every token of a text."""


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


def character_spans(emissions: Sequence[Floats], tokens: Sequence[NDArray[np.int64]], blank: int) -> list[Spans | None]:
    """Where each text's tokens are on the best path through its emissions, or None where there is no path; texts beside each other
    have the spans of each alone.
    """
    if not emissions:
        return []
    moved, ends = _trellis(emissions, tokens, blank)
    return [
        _spans(_backtrack(moved[:, text], int(ends[: len(own) + 1, text].argmax()), own, codes, blank), len(codes))
        for text, (own, codes) in enumerate(zip(emissions, tokens, strict=True))
    ]


def _trellis(emissions: Sequence[Floats], tokens: Sequence[NDArray[np.int64]], blank: int) -> tuple[NDArray[np.bool_], Floats]:
    """(frames, texts, tokens) whether the best way to have said the first j tokens by a frame says the last of them in it, and
    (frames + 1, texts) the best log-probability of having said a whole text.

    All texts go through the frames together; what is padding of one is never looked at, since frames and tokens follow from
    earlier ones only. In numpy rather than on the GPU, which would be given thousands of operations of a few microseconds.
    """
    counts = np.array([len(each) for each in tokens])
    frames, most = max(map(len, emissions)), int(counts.max())
    said = np.zeros((frames, len(tokens), most), dtype=np.float32)
    stay = np.zeros((frames, len(tokens), 1), dtype=np.float32)
    first = np.zeros((frames + 1, len(tokens)), dtype=np.float32)
    for text, (own, codes) in enumerate(zip(emissions, tokens, strict=True)):
        said[: len(own), text, : len(codes)] = own[:, codes]
        stay[: len(own), text, 0] = own[:, blank]
        first[1 : len(own) + 1, text] = np.cumsum(own[:, blank])
        first[max(0, len(own) + 1 - len(codes)) :, text] = np.inf
    moved = np.empty(said.shape, dtype=np.bool_)
    ends = np.empty(first.shape, dtype=np.float32)
    row, following = np.full((2, len(tokens), most + 1), -np.inf, dtype=np.float32)
    row[:, 0], texts = first[0], np.arange(len(tokens))
    ends[0] = row[texts, counts]
    for t in range(frames):
        changed, stayed = row[:, :-1] + said[t], row[:, 1:] + stay[t]
        np.greater(changed, stayed, out=moved[t])
        np.maximum(changed, stayed, out=following[:, 1:])
        following[:, 0] = first[t + 1]
        ends[t + 1] = following[texts, counts]
        row, following = following, row
    return moved, ends


def _backtrack(
    moved: NDArray[np.bool_], end: int, emission: Floats, tokens: NDArray[np.int64], blank: int
) -> list[tuple[int, int, float]] | None:
    """(token, frame, probability) along the best path, from the first token's first frame on; `end` is the frame after its last."""
    j = len(tokens)
    path: list[tuple[int, int, float]] = []
    for t in range(end - 1, -1, -1):
        path.append((j - 1, t, float(np.exp(emission[t, tokens[j - 1] if moved[t, j - 1] else blank]))))
        if moved[t, j - 1]:
            j -= 1
            if j == 0:
                return path[::-1]
    return None


def _spans(path: list[tuple[int, int, float]] | None, count: int) -> Spans | None:
    if path is None:
        return None
    spans: Spans = []
    first = 0
    for i in range(1, len(path) + 1):
        if i == len(path) or path[i][0] != path[first][0]:
            score = sum(step[2] for step in path[first:i]) / (i - first)
            spans.append((path[first][1], path[i - 1][1] + 1, score))
            first = i
    return spans if len(spans) == count else None


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

        log_errors_only("transformers")
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
