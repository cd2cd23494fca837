"""The truth about a recording, put together from the files that lie beside it.

====== =============================================================== ======================================
.json  WhisperX's JSON, or our own                                     text, speakers, word times, turns
.stm   NIST's segment time marks                                       text and speakers, with segment times
.ctm   NIST's conversation time marks                                  words with their times
.rttm  NIST's rich transcription time marks (`SPEAKER` lines)          turns
.uem   NIST's un-partitioned evaluation map                            the stretches that are scored
.txt   plain text                                                      text
====== =============================================================== ======================================

Where several say the same, the first of these is taken: text and speakers from .stm, .json, .ctm, .txt; word times from .ctm,
.json; turns from .rttm, .json's `turns`, the speakers' segments. A .json comes after what only people write, because it may
be a transcript that was left beside its recording.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from speech.scoring.marks import Utterance, read_ctm, read_rttm, read_stm, read_uem
from speech.scoring.truth_json import JsonTruth, read_json
from speech.scoring.types import Activity, Span, Spoken
from stenoflow.errors import InvalidReference

SUFFIXES = (".json", ".stm", ".ctm", ".rttm", ".uem", ".txt")
"""Of files that say what is true of a recording."""


@dataclass(frozen=True)
class Reference:
    """What is true of a recording; None where the files do not say."""

    utterances: tuple[Utterance, ...] | None = None
    """The text, in order of time."""
    timed_words: tuple[Spoken, ...] | None = None
    activity: tuple[Activity, ...] | None = None
    scored: tuple[Span, ...] | None = None
    """What counts, in seconds; the whole recording when None."""
    ignored: tuple[Span, ...] = ()
    """What does not count although it lies in `scored`."""
    language: str | None = None

    @property
    def speakers(self) -> frozenset[str]:
        """Of the turns."""
        return frozenset(speaker for speaker, _, _ in self.activity or ())

    @property
    def has_speakers(self) -> bool:
        """Whether every utterance says who speaks."""
        return bool(self.utterances) and all(utterance.speaker for utterance in self.utterances or ())

    def counted(self, duration: float) -> tuple[Span, ...]:
        """The stretches that are scored, in seconds and in order."""
        spans = sorted(self.scored or [(0.0, duration)])
        for start, end in self.ignored:
            spans = [piece for span in spans for piece in ((span[0], min(span[1], start)), (max(span[0], end), span[1]))]
            spans = [(low, high) for low, high in spans if high > low]
        return tuple(spans)


def read_reference(files: Mapping[str, bytes], recording: str) -> Reference:
    """The truth in the files (name → content) about the recording of that name.

    A file about several recordings is read for this one alone. Raises InvalidReference, which names the file and the line.
    """
    texts = {_suffix(name): (name, _decoded(name, content)) for name, content in files.items()}
    unknown = set(texts) - set(SUFFIXES)
    if unknown or not texts:
        raise InvalidReference(f"No readable reference for {recording}: give {', '.join(SUFFIXES)}.")
    json = read_json(*texts[".json"]) if ".json" in texts else JsonTruth()
    stm = read_stm(*texts[".stm"], recording) if ".stm" in texts else None
    ctm = read_ctm(*texts[".ctm"], recording) if ".ctm" in texts else None
    turns = read_rttm(*texts[".rttm"], recording) if ".rttm" in texts else json.turns
    utterances = stm.utterances if stm is not None else json.utterances
    if turns is None:
        turns = _spoken_when(utterances or ())
    if utterances is None and ctm is not None:
        utterances = tuple(Utterance(word.speaker, word.start, word.end, word.word) for word in ctm)
    if utterances is None and ".txt" in texts:
        utterances = (Utterance(None, None, None, " ".join(texts[".txt"][1].split())),)
    return Reference(
        utterances=utterances,
        timed_words=ctm if ctm is not None else json.words,
        activity=turns,
        scored=read_uem(*texts[".uem"], recording) if ".uem" in texts else None,
        ignored=stm.ignored if stm is not None else (),
        language=json.language,
    )


def _spoken_when(utterances: tuple[Utterance, ...]) -> tuple[Activity, ...] | None:
    """Turns as the utterances' times have them, pauses inside included; None when one lacks its speaker or times."""
    turns = tuple(
        (utterance.speaker, utterance.start, utterance.end)
        for utterance in utterances
        if utterance.speaker is not None and utterance.start is not None and utterance.end is not None
    )
    return turns if turns and len(turns) == len(utterances) else None


def _suffix(name: str) -> str:
    return "." + name.rpartition(".")[2].lower()


def _decoded(name: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InvalidReference(f"{name}, line {line}: not UTF-8 text; save the file as UTF-8.") from None
