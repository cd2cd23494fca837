"""Speech to text: Whisper through CTranslate2, batched, over the speech only.

Differs from WhisperX's pipeline (`whisperx/asr.py` 3.8.6) where that loses or invents words: chunks end at long silences,
the language is detected on speech, text that repeats itself is decoded again, and what Whisper itself takes for silence is
dropped. Nothing is sampled: the same recording gives the same text, in batches of any size.
"""

from __future__ import annotations

import dataclasses
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from speech import chunks as planning
from speech.audio import Recording
from speech.languages import WITHOUT_SPACES
from speech.models import resolve_asr
from speech.registry import Resolved
from speech.runtime import cpu_threads, load_once, resolve_device
from speech.schema import SAMPLE_RATE, AsrParams, AsrResult, AsrSegment, AsrWord, Chunk, RuntimeOptions
from speech.segmentation import Segmentation
from speech.stages import Progress
from speech.weights import whisper_folder

if TYPE_CHECKING:
    from faster_whisper import WhisperModel
    from faster_whisper.tokenizer import Tokenizer

UNDETERMINED = "und"
"""Language of a recording in which nobody speaks (ISO 639-2)."""
COMPRESSION_LIMIT = 2.4
NO_SPEECH_LIMIT = 0.6
LOGPROB_LIMIT = -1.0
"""OpenAI Whisper's thresholds (`whisper/transcribe.py`); WhisperX accepts them and ignores them."""
DETECTION_CHUNKS = 4
"""The chunks with most speech decide the language together."""
UNSURE = 0.5
_WINDOW = 30 * SAMPLE_RATE
_FRAMES_PER_SECOND = 100


@dataclasses.dataclass(frozen=True)
class Decoded:
    tokens: list[int]
    text: str
    avg_logprob: float
    no_speech_prob: float

    @property
    def repetitive(self) -> bool:
        """Text that compresses too well repeats itself."""
        data = self.text.encode()
        return len(data) / len(zlib.compress(data)) > COMPRESSION_LIMIT if data else False

    @property
    def silent(self) -> bool:
        return not self.text.strip() or (self.no_speech_prob > NO_SPEECH_LIMIT and self.avg_logprob < LOGPROB_LIMIT)


class Transcriber:
    """A loaded Whisper model with the options of one request."""

    def __init__(self, model: WhisperModel, params: AsrParams) -> None:
        self.model = model
        self.params = params

    def transcribe(self, recording: Recording, plan: Sequence[Chunk], batch_size: int, progress: Progress) -> AsrResult:
        """The text of the planned chunks. The result's `model` is the caller's to fill in."""
        if not plan:
            return self._result([], None, None)
        language, probability = self._language(recording, plan)
        tokenizer = self._tokenizer(language)
        segments: list[AsrSegment] = []
        for first in range(0, len(plan), batch_size):
            batch = plan[first : first + batch_size]
            segments += self._batch(recording, batch, tokenizer)
            progress((first + len(batch)) / len(plan))
        return self._result(segments, language, probability)

    def _result(self, segments: Sequence[AsrSegment], language: str | None, probability: float | None) -> AsrResult:
        """A recording without words has no language but the one that was asked for: music is not Romanian."""
        warnings: tuple[str, ...] = ()
        if not segments:
            language = self.params.language or (UNDETERMINED if self.model.model.is_multilingual else "en")
            probability = None
            warnings = ("No speech was found.",)
        elif probability is not None and probability < UNSURE:
            warnings = (
                f"The language was detected as {language!r} with a probability of {probability:.2f} only; give --language if it is another.",
            )
        return AsrResult(
            language=language or UNDETERMINED,
            language_probability=probability,
            task=self.params.task,
            segments=tuple(segments),
            model=_NO_MODEL,
            warnings=warnings,
        )

    # -- language -----------------------------------------------------------------------------------------------------

    def _language(self, recording: Recording, plan: Sequence[Chunk]) -> tuple[str, float | None]:
        """The language asked for, or the likeliest over the chunks with most speech."""
        if not self.model.model.is_multilingual:
            return "en", None
        if self.params.language:
            return self.params.language, None
        longest = sorted(plan, key=_speech, reverse=True)[:DETECTION_CHUNKS]
        total: dict[str, float] = {}
        for chunk in sorted(longest, key=lambda item: item.start):
            encoded = self.model.encode(self._features(recording, [chunk]))
            for token, probability in self.model.model.detect_language(encoded)[0]:
                total[token[2:-2]] = total.get(token[2:-2], 0.0) + probability * _speech(chunk)
        weight = sum(_speech(chunk) for chunk in longest)
        language = max(total, key=lambda code: total[code])
        return language, round(total[language] / weight, 4)

    def _tokenizer(self, language: str) -> Tokenizer:
        from faster_whisper.tokenizer import Tokenizer

        return Tokenizer(self.model.hf_tokenizer, self.model.model.is_multilingual, task=self.params.task, language=language)

    # -- decoding -----------------------------------------------------------------------------------------------------

    def _features(self, recording: Recording, batch: Sequence[Chunk]) -> NDArray[np.float32]:
        """(batch, mel, 3000) log-mel of chunks padded with silence.

        The audio is padded rather than the features: a padding of zeros in the log-mel domain is loud noise to Whisper.
        """
        extract = self.model.feature_extractor
        padded = np.zeros((len(batch), _WINDOW), dtype=np.float32)
        for row, chunk in zip(padded, batch, strict=True):
            samples = recording.read(round(chunk.start * SAMPLE_RATE), round(chunk.end * SAMPLE_RATE))[:_WINDOW]
            row[: len(samples)] = samples
        return np.stack([extract(row, padding=0)[:, : _WINDOW // extract.hop_length] for row in padded]).astype(np.float32)

    def _batch(self, recording: Recording, batch: Sequence[Chunk], tokenizer: Tokenizer) -> Iterator[AsrSegment]:
        encoded = self.model.encode(self._features(recording, batch))
        decoded = self._generate(encoded, len(batch), tokenizer)
        again = [i for i, item in enumerate(decoded) if item.repetitive]
        if again:
            one = self.model.encode(self._features(recording, [batch[i] for i in again]))
            for i, item in zip(again, self._generate(one, len(again), tokenizer, strict=True), strict=True):
                decoded[i] = item
        spoken = [i for i, item in enumerate(decoded) if not item.silent]
        words = self._words(encoded, batch, decoded, tokenizer)
        for i in spoken:
            yield AsrSegment(
                start=batch[i].start,
                end=batch[i].end,
                text=decoded[i].text.strip(),
                words=tuple(words[i]),
                regions=batch[i].regions,
                avg_logprob=round(decoded[i].avg_logprob, 4),
                no_speech_prob=round(decoded[i].no_speech_prob, 4),
            )

    def _generate(self, encoded: Any, count: int, tokenizer: Tokenizer, *, strict: bool = False) -> list[Decoded]:
        """Beam search; `strict` forbids the repetitions that a first pass fell into."""
        from faster_whisper.transcribe import get_suppressed_tokens

        prompt = self._prompt(tokenizer)
        results = self.model.model.generate(
            encoded,
            [prompt] * count,
            beam_size=self.params.beam_size,
            patience=1.0,
            length_penalty=1.0,
            repetition_penalty=1.1 if strict else 1.0,
            no_repeat_ngram_size=5 if strict else 0,
            max_length=self.model.max_length,
            suppress_blank=True,
            suppress_tokens=get_suppressed_tokens(tokenizer, [-1]),
            return_scores=True,
            return_no_speech_prob=True,
        )
        return [self._decoded(result, tokenizer) for result in results]

    def _prompt(self, tokenizer: Tokenizer) -> list[int]:
        """What the decoder is told first. Hints take at most half of its window, the hot words at most half of that: each fits
        alone in `get_prompt`, but two long ones together leave no room for text."""
        room = self.model.max_length // 2 - 1
        hotwords = (self.params.hotwords or "").strip()
        if hotwords:
            hotwords = tokenizer.decode(tokenizer.encode(" " + hotwords)[: room // 2])
        said = (self.params.initial_prompt or "").strip()
        previous = tokenizer.encode(" " + said)[-(room - room // 2 if hotwords else room) :] if said else []
        prompt: list[int] = self.model.get_prompt(tokenizer, previous, without_timestamps=True, hotwords=hotwords or None)
        return prompt

    @staticmethod
    def _decoded(result: Any, tokenizer: Tokenizer) -> Decoded:
        tokens = [token for token in result.sequences_ids[0] if token < tokenizer.eot]
        length = len(result.sequences_ids[0])
        # CTranslate2's score is divided by the length without the end token; Whisper's average counts it.
        return Decoded(tokens, tokenizer.decode(tokens), result.scores[0] * length / (length + 1), result.no_speech_prob)

    # -- word times ---------------------------------------------------------------------------------------------------

    def _words(
        self, encoded: Any, batch: Sequence[Chunk], decoded: Sequence[Decoded], tokenizer: Tokenizer
    ) -> list[list[AsrWord]]:
        """Each chunk's words with the times that Whisper's cross-attention gives them."""
        frames = [int(np.ceil((chunk.end - chunk.start) * _FRAMES_PER_SECOND)) for chunk in batch]
        aligned = self.model.find_alignment(tokenizer, [item.tokens for item in decoded], encoded, frames)
        spaced = tokenizer.language_code not in WITHOUT_SPACES
        return [
            _timed_words(item.text.strip(), pieces, chunk, spaced)
            for item, pieces, chunk in zip(decoded, aligned, batch, strict=True)
        ]


def _timed_words(text: str, pieces: Sequence[Mapping[str, Any]], chunk: Chunk, spaced: bool) -> list[AsrWord]:
    """The text's own words, each spanning the pieces of tokens it is made of.

    The pieces split at punctuation (`twenty`, `-one`) and carry spaces; the text's words are what a reader sees. Both are
    walked by characters, so that no character of the text can be lost.
    """
    words = text.split() if spaced else [character for character in text if not character.isspace()]
    owner = [piece for piece in pieces for character in piece["word"] if not character.isspace()]
    timed: list[AsrWord] = []
    at = 0
    for word in words:
        mine = owner[at : at + len(word)] or owner[-1:]
        at += len(word)
        start = chunk.start + float(mine[0]["start"]) if mine else chunk.start
        end = chunk.start + float(mine[-1]["end"]) if mine else chunk.end
        score = float(np.mean([piece["probability"] for piece in mine])) if mine else 0.0
        start = min(max(start, chunk.start), chunk.end)
        timed.append(
            AsrWord(word=word, start=round(start, 3), end=round(min(max(end, start), chunk.end), 3), score=round(score, 3))
        )
    return timed


def _speech(chunk: Chunk) -> float:
    return sum(region.end - region.start for region in chunk.regions)


_NO_MODEL = Resolved(kind="whisper", name="", revision="", origin="package").info


def load_whisper(model: Resolved, models_dir: Path, runtime: RuntimeOptions) -> WhisperModel:
    """The Whisper weights in CTranslate2, loaded once per process: int8 on a CPU, float16 on a GPU, unless told otherwise."""
    device, threads = resolve_device(runtime), cpu_threads(runtime)
    compute_type = runtime.compute_type if runtime.compute_type != "auto" else ("int8" if device == "cpu" else "float16")

    def load() -> WhisperModel:
        from faster_whisper import WhisperModel

        folder = whisper_folder(model, models_dir)
        return WhisperModel(str(folder), device=device, compute_type=compute_type, cpu_threads=threads, local_files_only=True)

    return load_once(("whisper", model.name, model.revision, device, compute_type, threads), load)


def run(
    inputs: Mapping[str, Path], params: AsrParams, runtime: RuntimeOptions, output: Path, progress: Progress
) -> dict[str, Any]:
    """The `asr` stage: audio and segmentation → text."""
    models_dir = runtime.models_path
    resolved = resolve_asr(params.model, params.language, models_dir=models_dir, offline=runtime.offline)
    plan = planning.plan(Segmentation.load(inputs["segmentation"]))
    began = time.perf_counter()
    model = load_whisper(resolved, models_dir, runtime)
    loaded = time.perf_counter() - began
    with Recording(inputs["audio"]) as recording:
        result = Transcriber(model, params).transcribe(recording, plan, runtime.batch_size, progress)
    result = result.model_copy(update={"model": resolved.info})
    output.write_text(result.model_dump_json(), encoding="utf-8")
    return {
        "language": result.language,
        "segments": len(result.segments),
        "words": sum(len(segment.words) for segment in result.segments),
        "load_seconds": round(loaded, 3),
        "device": str(model.model.device),
        "batch_size": runtime.batch_size,
    }
