"""Speech to text: Whisper through CTranslate2, batched, over the speech only.

Differs from WhisperX's pipeline (`whisperx/asr.py` 3.8.6) where that loses or invents words: chunks end at long silences,
the language is detected on speech, text that repeats itself is decoded again, a chunk with more text than Whisper decodes at once
is cut in two, and what Whisper itself takes for silence is dropped. Nothing is sampled: the same recording gives the same text, in
batches of any size.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Container, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from speech.asr import Transcribed, timed_words
from speech.asr.cuts import cut_around, halved
from speech.asr.decoded import LOGPROB_LIMIT, Decoded, better
from speech.asr.levels import Levelled
from speech.asr.memory import chunks_at_once
from speech.asr.tongues import (
    ALONE,
    LEAST,
    Part,
    Probabilities,
    in_allowed,
    in_languages,
    likeliest,
    plausible,
    together,
    utterances,
    voice,
)
from speech.asr.unworded import LEAST as LEAST_UNWORDED
from speech.asr.unworded import mostly_in, seconds, untranscribed, unworded
from speech.audio import Recording
from speech.languages import WITHOUT_SPACES, languages_of, text_language
from speech.loaded import Room, bytes_in, load_once
from speech.pipelined import pipelined
from speech.registry import Resolved
from speech.runtime import cpu_threads, resolve_device, whisper_compute_type
from speech.schema import (
    SAMPLE_RATE,
    USUAL_BATCH,
    WHOLE,
    AsrParams,
    AsrSegment,
    AsrWord,
    Chunk,
    Foreign,
    Region,
    RuntimeOptions,
    Shard,
    part_of,
)
from speech.sentences import join_words, separators
from speech.stages import Progress, said
from speech.weights import weights_folder
from stenoflow.errors import InvalidOption
from stenoflow.types import ModelInfo

if TYPE_CHECKING:
    from ctranslate2 import StorageView
    from faster_whisper import WhisperModel
    from faster_whisper.tokenizer import Tokenizer

Item = TypeVar("Item")
Result = TypeVar("Result")

AS_MUCH = 0.8
"""Of the text that a part had within its chunk: with less, decoded apart, it keeps that."""
DETECTION_CHUNKS = 4
"""The chunks with most speech decide the language together."""
SHARD_UNIT = USUAL_BATCH
"""Chunks at a multiple of which shards are cut: a shard's batches are full, but for its last."""
_WINDOW = 30 * SAMPLE_RATE
AT_ONCE = 4
"""Batches that are decoded beside each other on a CPU at most, each on its share of the cores. Beam search multiplies by matrices so
small that a second thread makes it slower (docs/performance.md)."""
CPU_BATCH = 2
"""Chunks of a batch on a CPU at most: more save no time there, and as many on every machine give the same sums of floats."""
_REMEMBERED = 64
"""Recordings whose language a loaded model remembers."""
_FRAMES_PER_SECOND = 100
SHORT_WINDOW = 10.0
"""Seconds that are encoded of what is shorter, to tell its language: in 30 s that is no surer and costs five times as much, in shorter
ones short sentences are taken for others."""
UNLIKE, LEAST_UNLIKE = 0.9, 3.0
"""Probability of another language than the one that was asked for, and seconds of voice in a chunk, that are worth a warning."""


class Detected(NamedTuple):
    """The language of a recording."""

    language: str
    probability: float | None = None
    among: tuple[str, ...] = ()
    """Those that it may be in."""


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """Whisper's weights in CTranslate2, and what was found out with them."""

    model: WhisperModel
    file: Path
    """Its `model.bin`."""
    languages: dict[str, Detected] = dataclasses.field(default_factory=dict)
    """Of the last recordings, by a hash of what was heard, so that the shards that one process decodes of a recording detect it once."""
    chunks: dict[int, int] = dataclasses.field(default_factory=dict)
    """By beam size: how many the GPU's memory held before anything was decoded."""


class Whisper(NamedTuple):
    """A loaded model (`speech.asr.Engine`)."""

    weights: Weights
    info: ModelInfo
    at_once: int

    @property
    def device(self) -> str:
        return str(self.weights.model.model.device)

    def chunks_at_once(self, params: AsrParams, runtime: RuntimeOptions) -> int:
        return chunks_at_once(self.weights.model, self.weights.file, self.weights.chunks, params.beam_size, runtime.workers)

    def transcribe(
        self,
        recording: Recording,
        plan: Sequence[Chunk],
        params: AsrParams,
        batch_size: int,
        progress: Progress,
        shard: Shard = WHOLE,
    ) -> Transcribed:
        return Transcriber(self.weights, self.info, params, self.at_once).transcribe(
            recording, plan, batch_size, progress, shard
        )


def load(model: Resolved, runtime: RuntimeOptions) -> Whisper:
    return Whisper(load_whisper(model, runtime.models_path, runtime), model.info, batches_at_once(runtime))


class Texts(NamedTuple):
    """What chunks say."""

    segments: list[AsrSegment]
    incomplete: list[Region]
    """Where the decoder reached its limit and the audio is too short to be cut."""
    foreign: Sequence[Foreign] = ()
    """What sounds like another language than the one that was asked for."""

    @property
    def words(self) -> list[AsrWord]:
        return [word for segment in self.segments for word in segment.words]

    @property
    def characters(self) -> int:
        return sum(len(word.word) for word in self.words)


class _Decoding(NamedTuple):
    """What the decoder made of a batch; or how its chunks are to be decoded apart, in their languages."""

    batch: Sequence[Chunk]
    language: str
    encoded: StorageView | None = None
    decoded: Sequence[Decoded] = ()
    foreign: Sequence[Foreign] = ()
    apart: Sequence[Part] = ()


def _joined(parts: Sequence[Texts]) -> Texts:
    return Texts(
        [segment for part in parts for segment in part.segments],
        [region for part in parts for region in part.incomplete],
        [stretch for part in parts for stretch in part.foreign],
    )


class Transcriber:
    """A loaded Whisper model with the options of one request."""

    def __init__(self, weights: Weights, info: ModelInfo, params: AsrParams, at_once: int = 1) -> None:
        self.model = weights.model
        self.multilingual = bool(weights.model.model.is_multilingual)
        self.allowed = languages_of(params.language)
        """The languages that may be spoken; none: any."""
        self._tokenizers: dict[str, Tokenizer] = {}
        self._among: tuple[str, ...] = ()
        """The languages that the recording may be in."""
        self._languages = weights.languages
        self.info = info
        self.params = params
        self.at_once = at_once
        """Batches, or chunks to hear a language in, that the model is given at the same time."""
        self._heard: dict[Chunk, NDArray[np.float32]] = {}
        """What the encoder made of chunks before they are decoded."""

    def transcribe(
        self, recording: Recording, plan: Sequence[Chunk], batch_size: int, progress: Progress, shard: Shard = WHOLE
    ) -> Transcribed:
        """The text of those of the planned chunks that are the shard's. At most `batch_size` chunks are at work at any time."""
        multilingual, info = self.multilingual, self.info
        begin, end = part_of(len(plan), shard, SHARD_UNIT)
        if begin == end:
            return Transcribed(segments=(), multilingual=multilingual, model=info)
        language, probability, self._among = self._language(recording, plan, batch_size)
        self._tokenizer(language)
        on_cpu = self.model.model.device == "cpu"
        size = min(batch_size, CPU_BATCH) if on_cpu else batch_size
        batches = [plan[first : min(first + size, end)] for first in range(begin, end, size)]
        segments: list[AsrSegment] = []
        incomplete: list[Region] = []
        foreign: list[Foreign] = []
        done = 0
        work = (
            self._each(lambda batch: self._batch(recording, batch, language), batches, batch_size // size)
            if on_cpu
            else self._pipelined(recording, batches, language)
        )
        with closing(work) as found:
            for batch, texts in zip(batches, found, strict=True):
                segments += texts.segments
                incomplete += texts.incomplete
                foreign += texts.foreign
                done += len(batch)
                said(progress, texts.segments, text_language(language, self.params.task))
                progress(done / (end - begin))
        return Transcribed(
            segments=tuple(segments),
            language=language,
            language_probability=probability,
            multilingual=multilingual,
            model=info,
            incomplete=tuple(incomplete),
            foreign=tuple(foreign),
            untranscribed=untranscribed(plan[begin:end], segments),
        )

    def _each(self, work: Callable[[Item], Result], items: Sequence[Item], most: int) -> Generator[Result, None, None]:
        """`work(item)` for each, in order, at most so many at once. When the results are no longer taken, no further item is begun."""
        at_once = min(self.at_once, most, len(items))
        if at_once < 2:
            yield from map(work, items)
            return
        pool = ThreadPoolExecutor(at_once, thread_name_prefix="whisper")
        try:
            yield from pool.map(work, items)
        finally:
            pool.shutdown(cancel_futures=True)

    def _pipelined(
        self, recording: Recording, batches: Sequence[Sequence[Chunk]], language: str
    ) -> Generator[Texts, None, None]:
        """The batches on a GPU: features are extracted ahead, and texts completed, beside the batch that is decoded.

        CTranslate2 queues what several threads ask of a model, so that the GPU goes from one batch's text to the last one's times.
        """

        def decode(item: tuple[Sequence[Chunk], NDArray[np.float32]]) -> _Decoding:
            batch, features = item
            encoded = self.model.encode(features)
            return self._decoding(recording, batch, encoded, language)

        yield from pipelined(
            ((batch, self._features(recording, batch)) for batch in batches),
            decode,
            lambda decoding: self._finished(recording, decoding),
            self.model.model.device,
        )

    # -- language -----------------------------------------------------------------------------------------------------

    def _language(self, recording: Recording, plan: Sequence[Chunk], most: int) -> Detected:
        """The language asked for, or the likeliest over the chunks with most speech."""
        if not self.multilingual:
            return Detected("en")
        if len(self.allowed) == 1:
            return Detected(self.allowed[0])
        longest = sorted(sorted(plan, key=voice, reverse=True)[:DETECTION_CHUNKS], key=lambda chunk: chunk.start)
        features = [self._features(recording, [chunk]) for chunk in longest]
        heard = hashlib.sha256(b"".join([repr(self.allowed).encode(), *(part.tobytes() for part in features)])).hexdigest()
        if heard not in self._languages:
            while len(self._languages) >= _REMEMBERED:
                self._languages.pop(next(iter(self._languages)), None)
            self._languages[heard] = self._detect(longest, features, most)
        found = self._languages[heard]
        return found._replace(language=self.params.usual) if self.params.usual else found

    def _detect(self, chunks: Sequence[Chunk], features: Sequence[NDArray[np.float32]], most: int) -> Detected:
        def detect(item: tuple[Chunk, NDArray[np.float32]]) -> Probabilities:
            chunk, part = item
            encoded = self.model.encode(part)
            self._remember([chunk], encoded)
            return self._probabilities(encoded)[0]

        total: dict[str, float] = {}
        for chunk, found in zip(chunks, self._each(detect, list(zip(chunks, features, strict=True)), most), strict=True):
            for code, probability in found.items():
                total[code] = total.get(code, 0.0) + probability * voice(chunk)
        language, probability = likeliest(total, self.allowed)
        return Detected(language, round(probability, 4), tuple(plausible(total)))

    def _probabilities(self, encoded: Any) -> list[Probabilities]:
        """Of each of what was encoded, the probability of every language."""
        return [
            {token[2:-2]: probability for token, probability in found} for found in self.model.model.detect_language(encoded)
        ]

    def _tokenizer(self, language: str) -> Tokenizer:
        """For speech in a language. Raises InvalidOption where the model has no token for it, as all before large-v3 for Cantonese."""
        if language not in self._tokenizers:
            self._tokenizers[language] = self._new_tokenizer(language)
        return self._tokenizers[language]

    def _new_tokenizer(self, language: str) -> Tokenizer:
        from faster_whisper.tokenizer import Tokenizer

        tokenizer = Tokenizer(self.model.hf_tokenizer, self.multilingual, task=self.params.task, language=language)
        if self.multilingual and tokenizer.language is None:
            raise InvalidOption(
                f"The model {self.info.name} does not support the language {language!r}; use large-v3 or large-v3-turbo"
                + (", or give the language as 'zh'." if language == "yue" else ".")
            )
        # By this it splits text into words: into those of the text, which it must not take for Chinese when it is a translation,
        # and by characters also in Khmer and Tibetan, which it does not list.
        written = text_language(language, self.params.task)
        tokenizer.language_code = "zh" if written in WITHOUT_SPACES else written
        return tokenizer

    # -- decoding -----------------------------------------------------------------------------------------------------

    def _features(self, recording: Recording, batch: Sequence[Chunk]) -> NDArray[np.float32]:
        """(batch, mel, 3000) log-mel of chunks, padded with silence to Whisper's 30 s.

        The audio is padded rather than the features: a padding of zeros in the log-mel domain is loud noise to Whisper.
        """
        extract = self.model.feature_extractor
        padded = np.zeros((len(batch), _WINDOW), dtype=np.float32)
        for row, chunk in zip(padded, batch, strict=True):
            samples = recording.read(round(chunk.start * SAMPLE_RATE), round(chunk.end * SAMPLE_RATE))[:_WINDOW]
            row[: len(samples)] = samples
        return np.stack([extract(row, padding=0)[:, : _WINDOW // extract.hop_length] for row in padded]).astype(np.float32)

    def _encoded(self, recording: Recording, batch: Sequence[Chunk]) -> StorageView:
        """(batch, 1500, dimension) what the encoder makes of the chunks; on a CPU, where it takes most of the time, no chunk is
        encoded twice. What it makes of one there does not depend on what it is batched with."""
        known = [self._heard.pop(chunk, None) for chunk in batch]
        new = [chunk for chunk, part in zip(batch, known, strict=True) if part is None]
        encoded = self.model.encode(self._features(recording, new)) if new else None
        if encoded is not None and len(new) == len(batch):
            return encoded
        from ctranslate2 import StorageView

        rest = iter(np.array(encoded)[:, None] if encoded is not None else ())
        return StorageView.from_array(np.concatenate([next(rest) if part is None else part for part in known]))

    def _remember(self, batch: Sequence[Chunk], encoded: StorageView, wanted: Container[Chunk] | None = None) -> None:
        """Keep what was encoded of the chunks that are wanted, or of all, until they are decoded; on a CPU only (`_encoded`)."""
        kept = [(i, chunk) for i, chunk in enumerate(batch) if wanted is None or chunk in wanted]
        if kept and encoded.device == "cpu" and encoded.dtype.name == "float32":
            rows = np.array(encoded)
            self._heard.update({chunk: rows[i : i + 1] for i, chunk in kept})

    def _batch(self, recording: Recording, batch: Sequence[Chunk], language: str) -> Texts:
        """The text of some chunks."""
        return self._finished(recording, self._decoding(recording, batch, self._encoded(recording, batch), language))

    def _decoding(self, recording: Recording, batch: Sequence[Chunk], encoded: StorageView, language: str) -> _Decoding:
        """The chunks decoded in the language; those with another language in them are cut there, and left to be decoded apart."""
        found = self._probabilities(encoded) if self.multilingual else []
        if len(self.allowed) == 1 or not found:
            foreign = self._foreign(batch, found)
            return _Decoding(batch, language, encoded, self._generate(encoded, len(batch), language), foreign)
        parts = self._in_languages(recording, batch, found, language)
        if [part.chunk for part in parts] == list(batch) and len({part.language for part in parts}) == 1:
            spoken = parts[0].language
            return _Decoding(batch, spoken, encoded, self._generate(encoded, len(batch), spoken))
        self._remember(batch, encoded, {part.chunk for part in parts})
        return _Decoding(batch, language, apart=parts)

    def _in_languages(
        self, recording: Recording, batch: Sequence[Chunk], found: Sequence[Probabilities], language: str
    ) -> list[Part]:
        """The chunks in the languages they are spoken in, those with several cut where one ends."""
        parts: list[Part] = []
        for chunk, probabilities in zip(batch, found, strict=True):
            likely, probability = likeliest(probabilities, self.allowed)
            alone = probability >= ALONE and (likely == language or voice(chunk) >= LEAST)
            own = [Part(chunk, likely)] if alone else self._parts(recording, chunk, language)
            parts += self._confirmed(recording, own, language)
        return parts

    def _confirmed(self, recording: Recording, parts: Sequence[Part], usual: str) -> list[Part]:
        """The parts of a chunk, those in the usual language after all whose text is likelier in that: an accent or a poor line can sound
        like another language, but is not understood in it."""
        confirmed: list[Part] = []
        for part in parts:
            spoken = part.language
            if spoken != usual:
                encoded = self._encoded(recording, [part.chunk])
                there, here = (self._generate(encoded, 1, language)[0].avg_logprob for language in (spoken, usual))
                if there > here:
                    self._remember([part.chunk], encoded)
                else:
                    spoken = usual
            confirmed.append(Part(part.chunk, spoken))
        return together(confirmed)

    def _foreign(self, batch: Sequence[Chunk], found: Sequence[Probabilities]) -> list[Foreign]:
        """The chunks that sound like another language than the one that was asked for."""
        heard = [(chunk, *likeliest(probabilities, ())) for chunk, probabilities in zip(batch, found, strict=False)]
        return [
            Foreign(start=chunk.start, end=chunk.end, language=language)
            for chunk, language, probability in heard
            if language not in self.allowed and probability >= UNLIKE and voice(chunk) >= LEAST_UNLIKE
        ]

    def _parts(self, recording: Recording, chunk: Chunk, language: str) -> list[Part]:
        """The chunk, cut where its language changes from one utterance to the next."""
        parts = utterances(chunk)
        seconds = max(SHORT_WINDOW, *(part.end - part.start + 1.0 for part in parts))
        frames = min(_WINDOW // self.model.feature_extractor.hop_length, 2 * round(seconds * _FRAMES_PER_SECOND / 2))
        encoded = self.model.encode(np.ascontiguousarray(self._features(recording, parts)[:, :, :frames]))
        return self._spoken(parts, self._probabilities(encoded), language)

    def _spoken(self, parts: Sequence[Chunk], found: Sequence[Probabilities], language: str) -> list[Part]:
        if self.allowed:
            return in_allowed(parts, found, language, self.allowed)
        return in_languages(parts, found, language, self._among)

    def _finished(self, recording: Recording, decoding: _Decoding) -> Texts:
        """The texts, with what was lost in the first pass."""
        if decoding.encoded is not None:
            texts = self._completed(recording, decoding.batch, decoding.encoded, [*decoding.decoded], decoding.language)
            return self._whole(recording, decoding.batch, texts, decoding.language)._replace(foreign=decoding.foreign)
        found: list[Texts] = []
        for language, neighbours in groupby(decoding.apart, key=lambda part: part.language):
            chunks = [part.chunk for part in neighbours]
            for first in range(0, len(chunks), len(decoding.batch)):
                batch = chunks[first : first + len(decoding.batch)]
                found.append(self._whole(recording, batch, self._texts(recording, batch, language), language))
        return _joined(found)

    def _whole(self, recording: Recording, batch: Sequence[Chunk], texts: Sequence[Texts], language: str) -> Texts:
        found = zip(batch, texts, strict=True)
        return _joined([self._mended(recording, chunk, own, language) for chunk, own in found])

    def _texts(self, recording: Recording, batch: Sequence[Chunk], language: str) -> list[Texts]:
        """Each chunk's text; of one that holds more than Whisper decodes at once, that of its halves."""
        encoded = self._encoded(recording, batch)
        return self._completed(recording, batch, encoded, self._generate(encoded, len(batch), language), language)

    def _completed(
        self, recording: Recording, batch: Sequence[Chunk], encoded: StorageView, decoded: list[Decoded], language: str
    ) -> list[Texts]:
        for i, item in enumerate(decoded):
            if item.repetitive:
                decoded[i] = self._without_loop(recording, batch[i], item, language)
        texts: list[Texts] = []
        for chunk, item, words in zip(batch, decoded, self._words(encoded, batch, decoded, language), strict=True):
            halves = halved(chunk, recording) if item.cut_short else None
            if halves is not None:
                texts.append(_joined(self._texts(recording, halves, language)))
            elif item.silent:
                texts.append(Texts([], []))
            else:
                incomplete = [Region(start=chunk.start, end=chunk.end)] if item.cut_short else []
                texts.append(Texts([_segment(chunk, item, words, language)], incomplete))
        return texts

    def _mended(self, recording: Recording, chunk: Chunk, first: Texts, language: str) -> Texts:
        """The chunk's text, or what its parts say when speech that has no words in it is decoded apart, louder, and in its own language.

        A decoder leaves out what sounds unlike the rest of its 30 s: another room, a quieter voice, another language.
        """
        lost = unworded(chunk, first.words)
        if not lost:
            return first
        parts: list[Texts] = []
        for piece in cut_around(chunk, lost):
            if not mostly_in(piece, lost):
                (again,) = self._texts(recording, [piece], language)
                before = _said_between(first, piece, lost)
                parts.append(again if again.characters >= AS_MUCH * before.characters else before)
                continue
            louder = Levelled(recording)
            tongue = self._tongue(louder, piece, language)
            (again,) = self._texts(louder, [piece], tongue)
            again = Texts([part for part in again.segments if part.avg_logprob >= LOGPROB_LIMIT], again.incomplete)
            parts.append(again if piece == chunk else self._mended(recording, piece, again, tongue))
        second = _joined(parts)
        gained = seconds(lost) - seconds(unworded(chunk, second.words))
        return second if gained >= LEAST_UNWORDED / 2 and second.characters > first.characters else first

    def _tongue(self, recording: Recording, chunk: Chunk, language: str) -> str:
        """The language of the chunk, where none was asked for and it is clear."""
        if len(self.allowed) == 1 or not self.multilingual:
            return language
        found = self._probabilities(self.model.encode(self._features(recording, [chunk])))
        return self._spoken([chunk], found, language)[0].language

    def _without_loop(self, recording: Recording, chunk: Chunk, first: Decoded, language: str) -> Decoded:
        """The best of a text that repeats itself and what the decoder gives when it must not."""
        encoded = self.model.encode(self._features(recording, [chunk]))
        best, penalty = first, 1.0 if first.bytewise else 1.1
        for size in first.strict_ngrams:
            strict = self._generate(encoded, 1, language, no_repeat_ngram_size=size, repetition_penalty=penalty)[0]
            best = better(best, strict)
            if not strict.repetitive:
                break
        return best

    def _generate(self, encoded: Any, count: int, language: str, **against_loops: float) -> list[Decoded]:
        """Beam search."""
        from faster_whisper.transcribe import get_suppressed_tokens

        tokenizer = self._tokenizer(language)
        prompt = self._prompt(tokenizer)
        results = self.model.model.generate(
            encoded,
            [prompt] * count,
            beam_size=self.params.beam_size,
            patience=1.0,
            length_penalty=1.0,
            max_length=self.model.max_length,
            suppress_blank=True,
            suppress_tokens=get_suppressed_tokens(tokenizer, [-1]),
            return_scores=True,
            return_no_speech_prob=True,
            **against_loops,
        )
        # CTranslate2's own limit (`src/models/whisper.cc`): half of the decoder's window, and no more than the prompt leaves.
        limit = min(self.model.max_length // 2, self.model.max_length - len(prompt))
        hints = tokenizer.decode([token for token in prompt if token < tokenizer.eot])
        return [self._decoded(result, tokenizer, limit, hints) for result in results]

    def _prompt(self, tokenizer: Tokenizer) -> list[int]:
        """The decoder's prompt. Hints take at most half of its window, the hot words at most half of that: each fits
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
    def _decoded(result: Any, tokenizer: Tokenizer, limit: int, hints: str) -> Decoded:
        tokens = [token for token in result.sequences_ids[0] if token < tokenizer.eot]
        length = len(result.sequences_ids[0])
        return Decoded(
            tokens,
            tokenizer.decode(tokens),
            # CTranslate2's score is divided by the length without the end token; Whisper's average counts it.
            result.scores[0] * length / (length + 1),
            result.no_speech_prob,
            cut_short=length >= limit,
            hints=hints,
        )

    # -- word times ---------------------------------------------------------------------------------------------------

    def _words(self, encoded: Any, batch: Sequence[Chunk], decoded: Sequence[Decoded], language: str) -> list[list[AsrWord]]:
        """Each chunk's words with the times that Whisper's cross-attention gives them."""
        frames = [int(np.ceil((chunk.end - chunk.start) * _FRAMES_PER_SECOND)) for chunk in batch]
        tokenizer = self._tokenizer(language)
        aligned = self.model.find_alignment(tokenizer, [item.tokens for item in decoded], encoded, frames)
        spaced = tokenizer.language_code not in WITHOUT_SPACES
        return [
            timed_words(item.text.strip(), pieces, chunk, spaced)
            for item, pieces, chunk in zip(decoded, aligned, batch, strict=True)
        ]


def _segment(chunk: Chunk, item: Decoded, words: Sequence[AsrWord], language: str) -> AsrSegment:
    return AsrSegment(
        start=chunk.start,
        end=chunk.end,
        text=item.text.strip(),
        language=language,
        words=tuple(words),
        regions=chunk.regions,
        avg_logprob=round(item.avg_logprob, 4),
        no_speech_prob=round(item.no_speech_prob, 4),
    )


def _said_between(texts: Texts, piece: Chunk, lost: Sequence[Region]) -> Texts:
    """What of a chunk's text is said in the piece of it, which begins and ends with the chunk or where speech without words is."""
    low = max((stretch.start for stretch in lost if stretch.start < piece.regions[0].start), default=0.0)
    high = min((stretch.start for stretch in lost if stretch.start > piece.regions[0].start), default=piece.end)
    found: list[AsrSegment] = []
    for segment in texts.segments:
        kept = [index for index, word in enumerate(segment.words) if low <= word.start < high]
        if not kept:
            continue
        start, end = max(segment.start, piece.start), min(segment.end, piece.end)
        every = [word.word for word in segment.words]
        part = slice(kept[0], kept[-1] + 1)
        words = [
            AsrWord(word=w.word, start=min(max(w.start, start), end), end=min(max(w.end, start), end), score=w.score)
            for w in segment.words[part]
        ]
        update = {
            "start": start,
            "end": end,
            "text": join_words(every[part], separators(every, segment.text, "en")[part]),
            "words": tuple(words),
            "regions": tuple(region for region in piece.regions if region.start < end and region.end > start) or piece.regions,
        }
        found.append(segment.model_copy(update=update))
    return Texts(found, [])


def batches_at_once(runtime: RuntimeOptions) -> int:
    """How many batches of one stage a loaded model decodes at the same time; one where other shards use it meanwhile."""
    return min(cpu_threads(runtime), AT_ONCE) if runtime.workers == 1 and resolve_device(runtime) == "cpu" else 1


def load_whisper(model: Resolved, models_dir: Path, runtime: RuntimeOptions) -> Weights:
    """The Whisper weights in CTranslate2, loaded once per process: int8 on a CPU and float16 on a GPU by default."""
    device, at_once = resolve_device(runtime), batches_at_once(runtime)
    threads, workers = cpu_threads(runtime) // at_once, max(runtime.workers, at_once)
    compute_type = whisper_compute_type(device, runtime.compute_type)

    def load(room: Room) -> Weights:
        from faster_whisper import WhisperModel

        folder = weights_folder(model, models_dir)
        room(bytes_in(folder))
        return Weights(
            WhisperModel(
                str(folder),
                device=device,
                compute_type=compute_type,
                cpu_threads=threads,
                num_workers=workers,
                local_files_only=True,
            ),
            folder / "model.bin",
        )

    key = ("whisper", model.name, model.revision, device, compute_type)
    return load_once(key, load, device=device, threads=threads if device == "cpu" else 0, workers=workers)
