"""One chunk of a session: its words with the session's times, and speakers that keep their names from chunk to chunk.

The chunk is heard after the last seconds of the audio before it, since every model needs context: a word that the border cut,
and a voice that says a syllable, are recognised with what came before. What was answered already is found in the new text and
left out. A word that the chunk's end cuts is held back and answered, whole, with the next chunk; an empty chunk asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from speech import chunks as planning
from speech.align import sentences
from speech.align.attention import attention_words, in_order
from speech.asr import UNDETERMINED, Transcribed, load
from speech.audio import InMemoryRecording
from speech.borders import decoder_prompt, first_unanswered, is_cut, shifted
from speech.diarize import labelled_turns
from speech.diarize.embedding import embed
from speech.diarize.networks import WINDOW, load_embedder, load_segmenter
from speech.diarize.segmentation import STEP, Segmentation, segment
from speech.host import Host
from speech.languages import text_language
from speech.merge import merge
from speech.models import resolve_asr, resolve_diarization
from speech.registry import PACKAGED_DIARIZATION, Resolved
from speech.schema import (
    SAMPLE_RATE,
    USUAL_BATCH,
    AlignResult,
    AsrParams,
    AsrResult,
    AsrSegment,
    Chunk,
    ClusterParams,
    Diarization,
    RuntimeOptions,
)
from speech.sentences import join_words, separators
from speech.session import TAIL_SECONDS, WORDS, ChunkParams, SentWord, Session
from speech.voices import recognised
from stenoflow.errors import InvalidOption, ModelUnavailable
from stenoflow.types import Segment, Turn, Word

LOUDEST = 2.0
"""Samples beyond this are no floats of -1…1 but integers cast to float; those between are clipped."""
SURE_PROBABILITY = 0.8
SURE_SECONDS = 2.0
"""A language this likely on this much speech is the session's; so is any after ENOUGH_SECONDS."""
ENOUGH_SECONDS = 10.0
JITTER = 0.2
"""Seconds that a word may seem to begin before the border although it is the chunk's."""
DOUBTFUL = -0.7
"""Mean log-probability below which a text is decoded again without the words before it."""


class Answer(NamedTuple):
    """What a chunk says, in the session's seconds."""

    segments: tuple[Segment, ...]
    words: tuple[Word, ...]
    """Those of the segments; none without `align`."""
    session: Session
    """For the next chunk."""


class _Window(NamedTuple):
    """The audio that a chunk is heard in: the end of what was before, and the chunk."""

    audio: NDArray[np.int16]
    begin: float
    """Seconds of the session at its first sample."""
    border: float
    """Seconds of the session at which the chunk begins."""
    again: bool
    """Whether the chunk is the one before once more. Its text begins anew: heard behind itself, it would lose what seems said."""

    @property
    def end(self) -> float:
        return self.begin + len(self.audio) / SAMPLE_RATE


class _Models(NamedTuple):
    asr: Resolved
    diarization: Resolved


def warm_up(params: ChunkParams, runtime: RuntimeOptions) -> None:
    """Load everything that a chunk can need, and use it once: the first use is the slowest."""
    models = _resolved(params, runtime)
    load_embedder(models.diarization, runtime.models_path, runtime)
    noise = np.random.default_rng(0).normal(0.0, 0.05, WINDOW).astype(np.float32)
    transcribe_chunk(noise, None, params, runtime)


def transcribe_chunk(
    samples: NDArray[np.float32],
    session: Session | None,
    params: ChunkParams,
    runtime: RuntimeOptions,
    *,
    final: bool = False,
) -> Answer:
    """The words of a chunk, `samples` being (n,) floats at 16 kHz, of any length.

    A word that the chunk's end cuts is held back for the next chunk, unless this one is `final`, or stands alone, without
    a session; the returned session need not be used.
    Raises InvalidOption for samples that are none and for options that are not the session's; UnknownModel,
    ModelUnavailable and OutOfMemory.
    """
    alone = session is None
    session = (session or Session(params)).accepting(params)
    window = _window(pcm(samples), session)
    flush = alone or final or not len(samples)
    if not len(window.audio) or (not len(samples) and session.held_from is None):
        return Answer((), (), session)
    models = _resolved(session.params, runtime)
    recording = InMemoryRecording(window.audio)
    segmenter = load_segmenter(models.diarization, runtime.models_path, runtime)
    segmentation = segment(recording, segmenter, _ignore)
    session = _moved_on(session, window, segmentation)
    if window.again:
        session = session._replace(words=())
    heard, session = _recognise(recording, window, segmentation, session, models.asr, runtime)
    sentences_, session = _new_sentences(heard, window, session, models.asr, flush)
    diarization, session = _speakers(recording, window, segmentation, session, models.diarization, runtime)
    asr = AsrResult(language=session.language or UNDETERMINED, task=session.params.task, segments=(), model=models.asr.info)
    aligned = AlignResult(segments=tuple(sentences_), model=models.asr.info, method=models.asr.engine.times or "attention")
    transcript = merge(window.end, asr, aligned, diarization, {})
    if session.params.align:
        return Answer(transcript.segments, transcript.word_segments, session)
    return Answer(tuple(part.model_copy(update={"words": ()}) for part in transcript.segments), (), session)


def pcm(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """The samples in 16 bits, as recordings are. Raises InvalidOption for samples that are not audio."""
    if samples.ndim != 1:
        raise InvalidOption(f"An audio chunk must be one channel of shape (samples,), not {samples.shape}.")
    if not np.isfinite(samples).all():
        raise InvalidOption("The audio chunk contains samples that are infinite or NaN.")
    if len(samples) and float(np.abs(samples).max()) > LOUDEST:
        raise InvalidOption(
            "The audio chunk's samples are outside -1…1; divide 16-bit samples by 32768, or send them as int16."
        )
    out: NDArray[np.int16] = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)
    return out


def _ignore(fraction: float) -> None:
    """Chunks are too short for progress."""


def _resolved(params: ChunkParams, runtime: RuntimeOptions) -> _Models:
    folder, offline, host = runtime.models_path, runtime.offline, Host.here(runtime)
    asr = resolve_asr(params.model, params.language, models_dir=folder, offline=offline, host=host)
    try:
        # What the thresholds of `speech.voices` are measured with.
        return _Models(asr, resolve_diarization(PACKAGED_DIARIZATION, models_dir=folder, offline=offline))
    except ModelUnavailable:
        return _Models(asr, resolve_diarization("auto", models_dir=folder, offline=offline, host=host))


def _window(chunk: NDArray[np.int16], session: Session) -> _Window:
    """The chunk behind as much of the audio before it as makes the segmentation's last window end where the chunk does."""
    audio = np.concatenate([session.tail, chunk])
    if len(audio) > WINDOW:
        audio = audio[min((len(audio) - WINDOW) % STEP, len(session.tail)) :]
    common = min(len(chunk), len(session.tail))
    again = bool(common) and session.held_from is None and np.array_equal(chunk[-common:], session.tail[-common:])
    return _Window(audio, session.elapsed - (len(audio) - len(chunk)) / SAMPLE_RATE, session.elapsed, again)


def _moved_on(session: Session, window: _Window, segmentation: Segmentation) -> Session:
    fresh = window.border - window.begin
    regions = planning.speech_regions(segmentation)
    spoken = sum(max(0.0, region.end - max(region.start, fresh)) for region in regions)
    return session._replace(
        samples=round(window.end * SAMPLE_RATE),
        tail=window.audio[-round(TAIL_SECONDS * SAMPLE_RATE) :],
        speech_seconds=session.speech_seconds + spoken,
    )


# -- text ---------------------------------------------------------------------------------------------------------------


def _recognise(
    recording: InMemoryRecording,
    window: _Window,
    segmentation: Segmentation,
    session: Session,
    model: Resolved,
    runtime: RuntimeOptions,
) -> tuple[list[AsrSegment], Session]:
    """The text of the stretches in which something is still to be answered, in the session's seconds."""
    since = min(session.held_from if session.held_from is not None else window.border, window.border) - window.begin
    plan = [chunk for chunk in planning.plan(segmentation) if chunk.regions[-1].end > since]
    if window.again:
        plan = [_from(since, chunk) for chunk in plan]
    if not plan:
        return [], session
    hint = session.params.initial_prompt
    context = decoder_prompt(hint, session.words, window.begin + plan[0].start, text_language_of(session))
    found = _transcribed(recording, plan, context, session, model, runtime)
    if context != hint and _doubtful(found, plan):
        # What came before can lead the decoder astray, a small model's above all.
        found = min(
            (found, _transcribed(recording, plan, hint, session, model, runtime)), key=lambda one: _unlikelihood(one, plan)
        )
    return [_shifted(part, window.begin, found.language) for part in found.segments], _with_language(session, found)


def _shifted(part: AsrSegment, by: float, usual: str | None) -> AsrSegment:
    """In the session's seconds; it says its language where that is not the session's."""
    return shifted(part, by).model_copy(update={"language": None if part.language == usual else part.language})


def _from(start: float, chunk: Chunk) -> Chunk:
    """The chunk without what is before `start`."""
    regions = (region.model_copy(update={"start": max(region.start, start)}) for region in chunk.regions if region.end > start)
    return chunk.model_copy(update={"start": max(chunk.start, start), "regions": tuple(regions)})


def _transcribed(
    recording: InMemoryRecording,
    plan: Sequence[Chunk],
    prompt: str | None,
    session: Session,
    model: Resolved,
    runtime: RuntimeOptions,
) -> Transcribed:
    settled = session.language if session.language_settled else None
    params = AsrParams(
        model=session.params.model,
        language=session.params.language or settled,
        task=session.params.task,
        initial_prompt=prompt,
        hotwords=session.params.hotwords,
    )
    return load(model, runtime).transcribe(recording, plan, params, runtime.batch_size or USUAL_BATCH, _ignore)


def text_language_of(session: Session) -> str:
    """The language of its answers."""
    return text_language(session.language or UNDETERMINED, session.params.task)


def _doubtful(found: Transcribed, plan: Sequence[Chunk]) -> bool:
    """Whether some of the text is unlikely, or a stretch of speech has none."""
    return len(found.segments) < len(plan) or any(part.avg_logprob < DOUBTFUL for part in found.segments)


def _unlikelihood(found: Transcribed, plan: Sequence[Chunk]) -> float:
    """How unlikely the text is, each stretch without any counting like a most unlikely one."""
    missing = max(0, len(plan) - len(found.segments))
    return 2.0 * missing - sum(part.avg_logprob for part in found.segments)


def _with_language(session: Session, found: Transcribed) -> Session:
    if session.language_settled or not found.segments or found.language is None:
        return session
    certain = found.language_probability is None or found.language_probability >= SURE_PROBABILITY
    enough = SURE_SECONDS if certain else ENOUGH_SECONDS
    settled = found.language_probability is None or session.speech_seconds >= enough
    return session._replace(language=found.language, language_settled=settled)


def _new_sentences(
    heard: Sequence[AsrSegment], window: _Window, session: Session, model: Resolved, flush: bool
) -> tuple[list[Segment], Session]:
    """The sentences of the words that no chunk before has answered, and that the chunk's end does not cut."""
    timed = [attention_words(part, model.name, model.engine.times or "attention") for part in heard]
    everything = [word for words in timed for word in words]
    answered = session.held_from if session.held_from is not None else window.border
    first = first_unanswered(session.words, everything, answered)
    last = len(everything)
    held: float | None = None
    if not flush and last > first and is_cut(everything[-1], heard[-1].regions, window.end):
        last, held = last - 1, everything[-1].start
    language = text_language_of(session)
    floor = session.words[-1].end if session.words else 0.0
    if first < last and abs(everything[first].start - answered) <= JITTER:
        floor = max(floor, min(answered, everything[first].end))
    out: list[Segment] = []
    at = 0
    for part, words in zip(heard, timed, strict=True):
        keep = slice(max(first - at, 0), max(last - at, 0))
        at += len(words)
        if words[keep]:
            ordered = in_order(words[keep], floor, max(part.end, floor))
            floor = ordered[-1].end
            spoken = text_language(part.language, session.params.task) if part.language else language
            out += _sentences(part, [word.word for word in words], keep, ordered, spoken)
    said = tuple(SentWord(word.word, word.start, word.end) for sentence in out for word in sentence.words)
    return out, session._replace(words=(*session.words, *said)[-WORDS:], held_from=held)


def _sentences(part: AsrSegment, texts: Sequence[str], keep: slice, words: Sequence[Word], language: str) -> list[Segment]:
    """The kept words of a stretch, with the spaces that they have in its text."""
    spaces = separators(texts, part.text, language)
    text = join_words(texts[keep], spaces[keep])
    return sentences(part.model_copy(update={"text": text}), words, language)


# -- speakers -----------------------------------------------------------------------------------------------------------


def _speakers(
    recording: InMemoryRecording,
    window: _Window,
    segmentation: Segmentation,
    session: Session,
    model: Resolved,
    runtime: RuntimeOptions,
) -> tuple[Diarization | None, Session]:
    """Who speaks when, by the session's names."""
    params = session.params
    if not params.diarize or not segmentation.activity.any():
        return None, session
    limits = ClusterParams(num_speakers=params.num_speakers, min_speakers=params.min_speakers, max_speakers=params.max_speakers)
    vectors, _ = embed(recording, segmentation, load_embedder(model, runtime.models_path, runtime), _ignore)
    labels, voices = recognised(segmentation, vectors, session.voices, window.border - window.begin, limits)
    turns, exclusive = labelled_turns(segmentation, labels, len(voices), limits)
    found = Diarization(
        turns=_named(turns, window.begin),
        exclusive_turns=_named(exclusive, window.begin),
        speakers=tuple(dict.fromkeys(f"SPEAKER_{voice:02d}" for _, _, voice in turns)),
    )
    return found, session._replace(voices=voices)


def _named(turns: Sequence[tuple[float, float, int]], by: float) -> tuple[Turn, ...]:
    return tuple(Turn(start=start + by, end=end + by, speaker=f"SPEAKER_{voice:02d}") for start, end, voice in turns)
