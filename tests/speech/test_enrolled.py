"""Which of a recording's speakers are enrolled."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from speech.enrolled import THRESHOLD, Consent, EnrolledVoice, Voiceprint, matched
from speech.schema import Diarization
from stenoflow.types import ModelInfo, VoiceMatch

MODEL = ModelInfo(name="campplus", revision="1", origin="package")
CONSENT = Consent(note="agreed", by="me", at=datetime(2026, 1, 1, tzinfo=UTC))


def at(degrees: float) -> tuple[float, float]:
    return math.cos(math.radians(degrees)), math.sin(math.radians(degrees))


def voice(name: str, *degrees: float, model: str = "campplus@1", seconds: float = 10.0) -> EnrolledVoice:
    prints = tuple(Voiceprint(model=model, embedding=at(angle), seconds=seconds) for angle in degrees)
    return EnrolledVoice(id=name, name=name, prints=prints, consents=(CONSENT,))


def speaking(*degrees: float) -> Diarization:
    embeddings = {f"SPEAKER_{number:02d}": at(angle) for number, angle in enumerate(degrees)}
    return Diarization(
        turns=(), exclusive_turns=(), speakers=tuple(embeddings), speaker_embeddings=embeddings, models={"diarization": MODEL}
    )


def names(diarization: Diarization, *voices: EnrolledVoice) -> dict[str, str]:
    return {label: match.name for label, match in matched(diarization, voices).speakers.items()}


def test_a_speaker_who_resembles_nobody_keeps_the_label() -> None:
    beyond = math.degrees(math.acos(THRESHOLD)) + 1
    assert matched(speaking(0, beyond), [voice("Anna", 0)]).speakers == {"SPEAKER_00": VoiceMatch(name="Anna", score=1.0)}


def test_each_voice_is_one_speakers_and_the_most_similar_pairs_come_first() -> None:
    assert names(speaking(10, 0), voice("Anna", 0)) == {"SPEAKER_01": "Anna"}
    assert names(speaking(0), voice("Anna", 20), voice("Ben", 10)) == {"SPEAKER_00": "Ben"}
