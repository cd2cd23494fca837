"""The typed values that pass between the stages, all frozen, all JSON.

Times are seconds as floats, counted from the recording's first sample. Names follow WhisperX where
WhisperX has one (`segments`, `words`, `word_segments`, `score`, `speaker`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from speech.glossary import Replacement
from speech.languages import text_language
from stenoflow.types import Frozen, ModelInfo, Segment, Stretch, Timing, Turn

SAMPLE_RATE = 16_000
"""Samples per second of every normalised recording."""
USUAL_BATCH = 8
"""Chunks decoded at once where nothing else is asked for or found, as in WhisperX."""


class Probe(Frozen):
    """What the source's container said of itself."""

    container: str
    codec: str
    sample_rate: int = Field(description="Hz, of the source's audio stream.")
    channels: int
    bit_rate: int | None = None
    declared_duration: float | None = Field(None, description="Seconds, from the container; None if it does not say.")
    has_video: bool = False


class ChosenTrack(Frozen):
    """Which of several audio tracks was taken."""

    number: int = Field(description="Among the audio tracks, from 1.")
    of: int
    language: str | None = Field(None, description="As the track is tagged.")
    title: str | None = None


class Carried(Frozen):
    """What the channels of a recording carry."""

    count: int
    """Channels."""
    what: Literal["voices", "mix", "one", "several"]
    """A voice each; one scene, as stereo music does; one sound, alike or on one channel alone; or there are more than two, which are not
    compared."""
    at_once: bool = False
    """Each has a talk of its own, both at the same time."""


class ChannelAudio(Frozen):
    """One channel, normalised."""

    number: int = Field(description="From 1.")
    sha256: str
    duration: float
    path: Path


class AudioInfo(Frozen):
    """A normalised recording: 16 kHz mono FLAC."""

    sha256: str = Field(description="Hex SHA-256 of the little-endian int16 samples; the recording's identity.")
    samples: int
    duration: float
    probe: Probe
    warnings: tuple[str, ...] = ()
    track: ChosenTrack | None = Field(None, description="Where there are several.")
    carried: Carried | None = Field(None, description="What its channels carry, where there are several.")
    channels: tuple[ChannelAudio, ...] = Field(
        (), description="Each by itself, where they were asked for and carry more than one sound."
    )


class Region(Frozen):
    """A stretch of audio in which someone speaks."""

    start: float
    end: float


class Chunk(Frozen):
    """What ASR decodes at once: at most 30 s, cut at silences and padded a little."""

    start: float
    end: float
    regions: tuple[Region, ...]
    """Where in it speech is likelier than not: shorter than the chunk, and with more gaps."""


class AsrWord(Frozen):
    """A word as the ASR model times it; `score` is the mean probability of its tokens."""

    word: str
    start: float
    end: float
    score: float


class AsrSegment(Frozen):
    """The text of one chunk, as the model gave it."""

    start: float
    end: float
    text: str
    words: tuple[AsrWord, ...]
    """All the text's words, in order: joined (with spaces, where the language has them) they are the text."""
    language: str | None = Field(None, exclude_if=lambda value: value is None)
    """In which it is spoken. Left out where all of the recording is in one language, or the model does not report it."""
    regions: tuple[Region, ...]
    """Where in the chunk speech is likelier than not."""
    avg_logprob: float
    no_speech_prob: float | None = None


class Foreign(Frozen):
    """A chunk that sounds like another language than the one that was asked for."""

    start: float
    end: float
    language: str


class AsrResult(Frozen):
    language: str
    """That of most of its speech."""
    language_probability: float | None = Field(None, description="None when the language was given.")
    task: Literal["transcribe", "translate"] = "transcribe"
    languages: tuple[str, ...] = Field((), exclude_if=lambda value: not value)
    """Where there are several: in the order in which they are first spoken."""
    segments: tuple[AsrSegment, ...]
    model: ModelInfo
    timing: Timing = Field("attention", exclude_if=lambda value: value == "attention")
    """What the words' times come from. Left out for Whisper's, whose artifacts are read by versions that know no other engine."""
    untranscribed: tuple[Stretch, ...] = Field((), exclude_if=lambda value: not value)
    """Where someone speaks and there are no words."""
    warnings: tuple[str, ...] = ()

    def spoken(self, segment: AsrSegment | Segment) -> str:
        """The language of a segment."""
        return segment.language or self.language

    def text_language(self, segment: AsrSegment | Segment) -> str:
        """That of a segment's text."""
        return text_language(segment.language or self.language, self.task)


class AlignResult(Frozen):
    segments: tuple[Segment, ...]
    model: ModelInfo
    method: Timing
    others: dict[str, ModelInfo] = Field({}, exclude_if=lambda value: not value)
    """The models of further languages, by language."""
    warnings: tuple[str, ...] = ()


class Diarization(Frozen):
    turns: tuple[Turn, ...]
    exclusive_turns: tuple[Turn, ...] = Field(description="The same without overlap: the louder speaker only.")
    speakers: tuple[str, ...]
    speaker_embeddings: dict[str, tuple[float, ...]] = Field({})
    models: dict[str, ModelInfo] = Field({})
    warnings: tuple[str, ...] = ()


class Shard(Frozen):
    """Which part of a stage's work is asked for; never part of the stage's key.

    What is cut is never the audio, which would change the text at every cut, but the list of what a stage goes through: windows
    of the segmentation, chunks of speech, their segments. Each shard reads the whole recording's plan and does its part; a
    stage's `combine` puts the parts together, byte for byte the artifact of the undivided stage.
    """

    index: int = Field(ge=0)
    count: int = Field(ge=1)


WHOLE = Shard(index=0, count=1)


def part_of(total: int, shard: Shard, unit: int) -> tuple[int, int]:
    """First and one past the last of the items that are the shard's; all shards together cover each of `total` once.

    Cuts lie at multiples of `unit`, the size of a batch, so that every batch holds the same items as undivided: sums of
    floats depend on what they are batched with.
    """
    cuts = [min(total, round(total * i / shard.count / unit) * unit) for i in (shard.index, shard.index + 1)]
    return cuts[0], total if shard.index + 1 == shard.count else cuts[1]


# -- parameters of each stage: all that changes its output, and nothing else ------------------------------------------


class SegmentParams(Frozen):
    model: str = "auto"


class AsrParams(Frozen):
    model: str = "auto"
    language: str | None = None
    """One, or those that may be spoken (`en,fr`)."""
    usual: str | None = Field(None, exclude_if=lambda value: value is None)
    """The recording's language, where other shards have detected it."""
    task: Literal["transcribe", "translate"] = "transcribe"
    beam_size: int = 5
    initial_prompt: str | None = None
    hotwords: str | None = None


class AlignParams(Frozen):
    model: str = "auto"
    others: dict[str, str] = Field({}, exclude_if=lambda value: not value)
    """The models of further languages, by language."""


class EmbedParams(Frozen):
    model: str = "auto"


class ClusterParams(Frozen):
    num_speakers: int | None = None
    min_speakers: int | None = None
    max_speakers: int | None = None


class DiarizeParams(ClusterParams):
    model: str = "auto"


class MergeParams(Frozen):
    options: dict[str, Any] = Field({})
    """The request's effective options, echoed in the transcript."""
    replacements: tuple[Replacement, ...] = Field((), exclude_if=lambda value: not value)
    """Of a glossary."""


class StreamParams(Frozen):
    """One of several channels or tracks that are joined."""

    channel: int | None = None
    """Its number, of a channel."""
    name: str | None = None
    """Who speaks, of a track."""


class JoinParams(MergeParams):
    streams: tuple[StreamParams, ...]


class RuntimeOptions(Frozen):
    """How a stage is run here; never part of its key."""

    batch_size: int | None = None
    """Chunks decoded at once; None: as many as the memory of a GPU holds (`speech.asr.memory`), USUAL_BATCH on a CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compute_type: str = "auto"
    threads: int = 0
    """0: decided from the number of cores."""
    workers: int = 1
    """How many shards of a stage may use one loaded model at the same time."""
    models_dir: str | None = None
    offline: bool = False

    @property
    def models_path(self) -> Path:
        """Folder for joined and converted weights."""
        return Path(self.models_dir or "~/.stenoflow/models").expanduser()
