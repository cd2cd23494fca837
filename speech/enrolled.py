"""Voices that have names, and which of a recording's speakers they are. Needs no engine: embeddings are compared as they are stored."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from pydantic import Field

from speech.schema import Diarization
from stenoflow.types import Frozen, ModelInfo, VoiceMatch

THRESHOLD = 0.65
"""Least cosine similarity of a speaker and an enrolled voice who are taken for one person. Of the packaged CAM++, chosen on half of the
voices at hand (docs/accuracy.md). To call a stranger by a name is worse than to leave somebody unnamed."""
OTHER_MODEL = "{count} enrolled {voices} not compared: {their} embeddings are another diarization model's. Enrol {them} again."
NO_EMBEDDINGS = "No enrolled voice was compared: this diarization model gives no speaker embeddings."


class Voiceprint(Frozen):
    """What one recording says of a voice."""

    model: str
    """Name and revision of the diarization model; embeddings of different ones are not comparable."""
    embedding: tuple[float, ...]
    seconds: float
    """Of speech that it was computed from."""


class Consent(Frozen):
    """That the person agreed to be recognised."""

    note: str = Field(min_length=1, max_length=500)
    """Who agreed, how, and where that is written down."""
    by: str
    """Who enrolled the voice: a key's name, or the user of a command."""
    at: datetime


class EnrolledVoice(Frozen):
    """A voice that has a name."""

    id: str
    name: str = Field(min_length=1, max_length=100)
    prints: tuple[Voiceprint, ...]
    consents: tuple[Consent, ...]
    """One for each time that recordings were added."""

    def embedding(self, model: str) -> list[float] | None:
        """Unit mean of its prints of that model, weighted by their speech; None where there is none."""
        own = [print_ for print_ in self.prints if print_.model == model]
        if not own:
            return None
        units = [(_unit(print_.embedding), print_.seconds) for print_ in own]
        return _unit([sum(unit[i] * seconds for unit, seconds in units) for i in range(len(own[0].embedding))])


class Matches(NamedTuple):
    speakers: dict[str, VoiceMatch]
    """By the speaker's label; those who resemble nobody enough are left out."""
    warnings: tuple[str, ...]


NOBODY = Matches({}, ())


def model_of(model: ModelInfo) -> str:
    """What says whether two embeddings are comparable."""
    return f"{model.name}@{model.revision}"


def matched(diarization: Diarization, voices: Sequence[EnrolledVoice], threshold: float = THRESHOLD) -> Matches:
    """Which of the speakers are enrolled: the most similar pairs first, each speaker and each voice once.

    What is not at least `threshold` similar stays unnamed.
    """
    if not voices or not diarization.speakers:
        return NOBODY
    if not diarization.speaker_embeddings:
        return Matches({}, (NO_EMBEDDINGS,))
    model = model_of(diarization.models["diarization"])
    known = {place: embedding for place, voice in enumerate(voices) if (embedding := voice.embedding(model)) is not None}
    pairs = _similar(diarization.speaker_embeddings, known, threshold)
    found: dict[str, VoiceMatch] = {}
    taken: set[int] = set()
    for score, label, place in pairs:
        if label not in found and place not in taken:
            found[label] = VoiceMatch(name=voices[place].name, score=round(score, 3))
            taken.add(place)
    return Matches({label: found[label] for label in diarization.speakers if label in found}, _others(len(voices) - len(known)))


def _similar(
    speakers: Mapping[str, Sequence[float]], known: Mapping[int, Sequence[float]], threshold: float
) -> list[tuple[float, str, int]]:
    """(similarity, label, voice) of all pairs that are similar enough, the most similar first."""
    units = {label: _unit(embedding) for label, embedding in speakers.items()}
    pairs = [(similarity(unit, embedding), label, place) for label, unit in units.items() for place, embedding in known.items()]
    return sorted((pair for pair in pairs if pair[0] >= threshold), key=lambda pair: (-pair[0], pair[1:]))


def similarity(one: Sequence[float], other: Sequence[float]) -> float:
    """Of two unit vectors, their cosine."""
    return sum(a * b for a, b in zip(one, other, strict=True))


def _unit(vector: Iterable[float]) -> list[float]:
    values = list(vector)
    length = math.sqrt(sum(value * value for value in values))
    return [value / max(length, 1e-8) for value in values]


def _others(count: int) -> tuple[str, ...]:
    if not count:
        return ()
    words = ("voice was", "its", "it") if count == 1 else ("voices were", "their", "them")
    return (OTHER_MODEL.format(count=count, voices=words[0], their=words[1], them=words[2]),)
