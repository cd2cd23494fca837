"""What a computed stage is asked, the key that follows from it, and the record of what it left. Needs no Prefect."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from pydantic import BaseModel, Json

from infra import compute
from infra.artifacts import ArtifactRef, StageOutcome
from infra.jobs import Following, StageJob, key_of
from infra.settings import StenoSettings
from speech.glossary import Replacement
from speech.registry import Resolved
from speech.schema import (
    AlignParams,
    AsrParams,
    ClusterParams,
    DiarizeParams,
    EmbedParams,
    JoinParams,
    MergeParams,
    RuntimeOptions,
    SegmentParams,
    StreamParams,
)
from speech.stages import StageName, step_of
from speech.stored import parsed
from stenoflow.types import Frozen
from tasks.decoding import Recording
from tasks.models import Models, argument, pinned


class StageCall(Frozen):
    """All that a computed stage is asked."""

    stage: StageName
    inputs: dict[str, ArtifactRef]
    """By kind."""
    params: dict[str, Any]
    models: dict[str, str]
    """Role to pinned revision."""
    duration: float
    """Seconds of audio, which the time-out is scaled to."""
    batch_size: int | None = None
    """Chunks decoded at once; None where that is found out. No part of the key."""
    backend: str | None = None
    """Where it is computed; by default as the settings say. No part of the key."""
    arithmetic: str = ""
    """What its networks compute on and in; empty for what a CPU does by default."""
    again: bool = False
    """It is computed although its result is cached. No part of the key."""
    then: tuple[StageCall, ...] = ()
    """What the run will ask for next, without the artifacts that are not there yet. No part of the key."""
    label: str = ""
    """Distinguishes this task run from its siblings in Prefect's views: the model."""

    @property
    def key(self) -> str:
        return key_of(self.stage, self.inputs, self.params, self._models)

    @property
    def _models(self) -> dict[str, str]:
        return self.models | ({"arithmetic": self.arithmetic} if self.arithmetic else {})

    @property
    def shown_as(self) -> str:
        return step_of(self.stage)

    def placed(self, settings: StenoSettings, backend: str | None) -> StageCall:
        """The call as it is computed by that backend: its results are only those of the same arithmetic."""
        found = compute.arithmetic(self.stage, self.models, settings, backend)
        then = tuple(each.placed(settings, backend) for each in self.then)
        return self.model_copy(update={"backend": backend, "arithmetic": found, "then": then})

    def job(self, runtime: RuntimeOptions, *, fresh: bool = False, larger: int = 0) -> StageJob:
        """What a backend is given to compute it."""
        return StageJob(
            stage=self.stage,
            key=self.key,
            inputs=self.inputs,
            params=self.params,
            runtime=runtime,
            fresh=fresh,
            larger=larger,
            then=tuple(each.following() for each in self.then),
        )

    def following(self) -> Following:
        """As it is known before all of its inputs are there."""
        return Following(stage=self.stage, params=self.params, models=self._models, batch_size=self.batch_size)


class AsrOptions(Protocol):
    """Of a request, what its words depend on."""

    @property
    def language(self) -> str | None: ...
    @property
    def task(self) -> Literal["transcribe", "translate"]: ...
    @property
    def initial_prompt(self) -> str | None: ...
    @property
    def hotwords(self) -> str | None: ...
    @property
    def batch_size(self) -> int | None: ...


def segment_call(recording: Recording, models: Models, then: tuple[StageCall, ...] = ()) -> StageCall:
    """Who is active when; `then` is what the run will ask about that."""
    return StageCall(
        stage="segment",
        inputs={"audio": recording.audio},
        params=SegmentParams(model=argument(models.segmentation)).model_dump(mode="json"),
        models={"segmentation": pinned(models.segmentation)},
        duration=recording.duration,
        then=then,
        label=models.segmentation.name,
    )


def asr_call(recording: Recording, segmentation: ArtifactRef | None, models: Models, asked: AsrOptions) -> StageCall:
    """The words. Without the segmentation it says what is known before there is one (`StageCall.then`)."""
    params = AsrParams(
        model=argument(models.asr),
        language=asked.language,
        task=asked.task,
        initial_prompt=asked.initial_prompt or None,
        hotwords=asked.hotwords or None,
    )
    return StageCall(
        stage="asr",
        inputs=_known(audio=recording.audio, segmentation=segmentation),
        params=params.model_dump(mode="json"),
        models={"asr": pinned(models.asr)},
        duration=recording.duration,
        batch_size=asked.batch_size,
        label=models.asr.name,
    )


def align_call(
    recording: Recording,
    text: ArtifactRef | None,
    aligner: Resolved,
    *,
    batch_size: int | None,
    others: Mapping[str, Resolved] | None = None,
) -> StageCall:
    """The words of `text` with their times, from wav2vec2 or from Whisper's own cross-attention; `others` are those of further
    languages."""
    others = others or {}
    params = AlignParams(model=argument(aligner), others={language: argument(other) for language, other in others.items()})
    return StageCall(
        stage="align",
        inputs=_known(audio=recording.audio, asr=text),
        params=params.model_dump(mode="json"),
        models={"align": pinned(aligner)} | {f"align:{language}": pinned(other) for language, other in others.items()},
        duration=recording.duration,
        batch_size=batch_size,
        label=aligner.name,
    )


def embed_call(recording: Recording, segmentation: ArtifactRef | None, models: Models, *, batch_size: int | None) -> StageCall:
    """The costly half of diarization: a speaker embedding for every stretch of the segmentation. It knows nothing of how many
    speakers are asked for."""
    return StageCall(
        stage="embed",
        inputs=_known(audio=recording.audio, segmentation=segmentation),
        params=EmbedParams(model=argument(models.diarization)).model_dump(mode="json"),
        models={"embedding": pinned(models.diarization)},
        duration=recording.duration,
        batch_size=batch_size,
        label=models.diarization.name,
    )


def cluster_call(
    recording: Recording, segmentation: ArtifactRef, embeddings: ArtifactRef, models: Models, speakers: ClusterParams
) -> StageCall:
    """The cheap half of diarization: turns of as many speakers as there are, or as were asked for."""
    return StageCall(
        stage="cluster",
        inputs={"segmentation": segmentation, "embeddings": embeddings},
        params=speakers.model_dump(mode="json"),
        models={"embedding": pinned(models.diarization)},
        duration=recording.duration,
        label=_how_many(speakers),
    )


def diarize_call(recording: Recording, models: Models, speakers: ClusterParams) -> StageCall:
    """Turns of speakers straight from the audio."""
    params = DiarizeParams(model=argument(models.diarization), **speakers.model_dump())
    return StageCall(
        stage="diarize",
        inputs={"audio": recording.audio},
        params=params.model_dump(mode="json"),
        models={"diarization": pinned(models.diarization)},
        duration=recording.duration,
        label=models.diarization.name,
    )


def merge_call(
    recording: Recording,
    text: ArtifactRef,
    *,
    alignment: ArtifactRef | None,
    diarization: ArtifactRef | None,
    options: dict[str, Any],
    replacements: tuple[Replacement, ...] = (),
) -> StageCall:
    """Segments with one speaker each; without `diarization`, without speakers; without `alignment`, without word times."""
    return StageCall(
        stage="merge",
        inputs=_known(audio=recording.audio, asr=text, alignment=alignment, diarization=diarization),
        params=MergeParams(options=options, replacements=replacements).model_dump(mode="json"),
        models={},
        duration=recording.duration,
        label="with speakers" if diarization else "without speakers",
    )


class Found(NamedTuple):
    """What the stages left of one channel or track."""

    recording: Recording
    text: ArtifactRef
    alignment: ArtifactRef | None
    diarization: ArtifactRef | None


def join_call(
    whole: Recording,
    found: Sequence[Found],
    streams: Sequence[StreamParams],
    *,
    options: dict[str, Any],
    replacements: tuple[Replacement, ...] = (),
) -> StageCall:
    """One transcript of several channels or tracks, a speaker for each or, where it was diarized, its speakers."""
    numbered = {
        f"{kind}-{number}": ref
        for number, (recording, text, alignment, diarization) in enumerate(found, 1)
        for kind, ref in _known(audio=recording.audio, asr=text, alignment=alignment, diarization=diarization).items()
    }
    return StageCall(
        stage="join",
        inputs={"audio": whole.audio, **numbered},
        params=JoinParams(options=options, replacements=replacements, streams=tuple(streams)).model_dump(mode="json"),
        models={},
        duration=whole.duration,
        label=f"{len(found)} channels",
    )


def _known(**inputs: ArtifactRef | None) -> dict[str, ArtifactRef]:
    return {kind: ref for kind, ref in inputs.items() if ref is not None}


def _how_many(speakers: ClusterParams) -> str:
    low, high = speakers.min_speakers, speakers.max_speakers
    if speakers.num_speakers:
        return f"{speakers.num_speakers} speakers"
    if low or high:
        return f"{low or 1} to {high or 'any number of'} speakers"
    return "an unknown number of speakers"


class _Record(BaseModel):
    """What Prefect writes of a result, as far as it is ours (`prefect.results.ResultRecord`)."""

    result: Json[Any]


def outcome_in(record: bytes, key: str) -> StageOutcome:
    """What the stage of that key left, out of its record's bytes. Raises ValueError when they are damaged, or another stage's.

    Prefect would read them with whatever serializer the record names, pickle among them: who may write to the store could
    have it run code. It is read as JSON, whatever the record says.
    """
    outcome = StageOutcome.model_validate(parsed(_Record, record).result, extra="ignore")
    if outcome.key not in ("", key):
        raise ValueError("the record belongs to another stage")
    return outcome


def record_of(key: str, outcome: StageOutcome) -> bytes:
    """The record as Prefect reads and writes it: as plain JSON, without its hook that makes objects of any class."""
    metadata = {"storage_key": key, "serializer": {"type": "json", "object_decoder": None}}
    return json.dumps({"metadata": metadata, "result": outcome.model_dump_json()}).encode()
