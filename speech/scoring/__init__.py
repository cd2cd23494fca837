"""What a transcript is worth, measured against truth: word errors, speaker errors, word times, and whether a change is real.

Pure functions of values, the same for every model and every system. Importing this loads nothing of the engine; what
computes (rapidfuzz, SciPy) is loaded when it is first needed.
"""

from __future__ import annotations

from speech.scoring.normaliser import normalise, whisper_normalise
from speech.scoring.scores import score
from speech.scoring.times import time_errors
from speech.scoring.turns import diarization_errors
from speech.scoring.types import (
    Activity,
    DiarizationErrors,
    Scores,
    ScoringOptions,
    SpeakerCount,
    Spoken,
    TimeErrors,
    WordErrors,
)
from speech.scoring.words import speaker_attributed_errors, texts_by_speaker, time_constrained_errors, word_errors

__all__ = [
    "Activity",
    "DiarizationErrors",
    "Scores",
    "ScoringOptions",
    "SpeakerCount",
    "Spoken",
    "TimeErrors",
    "WordErrors",
    "diarization_errors",
    "normalise",
    "score",
    "speaker_attributed_errors",
    "texts_by_speaker",
    "time_constrained_errors",
    "time_errors",
    "whisper_normalise",
    "word_errors",
]
