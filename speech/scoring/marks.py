"""NIST's line formats: who speaks when, what is said when, and what is scored.

One record per line, fields separated by blanks, `;;` begins a comment. The formats are described in NIST's SCTK
(`doc/infmts.htm`: ctm, stm) and in the Rich Transcription evaluation plans (RT-09, appendix A: RTTM; UEM).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from speech.scoring.types import Activity, Span, Spoken
from stenoflow.errors import InvalidReference

_RTTM_TYPES = frozenset(
    {"SPEAKER", "SEGMENT", "NOSCORE", "NO_RT_METADATA", "LEXEME", "NON-LEX", "NON-SPEECH", "FILLER", "EDIT", "SU", "IP", "CB"}
    | {"A/P", "SPKR-INFO"}
)
_WORD_TYPES = frozenset({"lex", "for-lex", "un-lex", "na", "<na>"})
"""Of CTM's types, those that are words rather than noises or pauses."""
_IGNORED = "IGNORE_TIME_SEGMENT_IN_SCORING"
_NOBODY = "inter_segment_gap"


@dataclass(frozen=True)
class Utterance:
    """What someone said in one go; times in seconds."""

    speaker: str | None
    start: float | None
    end: float | None
    text: str


class Stm(NamedTuple):
    utterances: tuple[Utterance, ...]
    ignored: tuple[Span, ...]
    """Stretches that are not scored."""


class _Line(NamedTuple):
    """One record, and where it stands."""

    file: str
    number: int
    fields: list[str]

    def wrong(self, what: str) -> InvalidReference:
        return InvalidReference(f"{self.file}, line {self.number}: {what}.")

    def needs(self, count: int, shape: str) -> None:
        if len(self.fields) < count:
            raise self.wrong(f"{len(self.fields)} fields instead of {count}: {shape}")

    def seconds(self, place: int, name: str) -> float:
        try:
            value = float(self.fields[place])
        except ValueError:
            raise self.wrong(f"the {name} (field {place + 1}) is not a number of seconds") from None
        if not math.isfinite(value) or value < 0:
            raise self.wrong(f"the {name} (field {place + 1}) is not a time in a recording")
        return value

    def span(self, start: int, end: int) -> Span:
        first, last = self.seconds(start, "start"), self.seconds(end, "end")
        if last < first:
            raise self.wrong(f"ends at {last:g} s, before it starts at {first:g} s")
        return first, last


def read_rttm(file: str, text: str, recording: str) -> tuple[Activity, ...]:
    """(speaker, start, end) of every SPEAKER line about the recording. Raises InvalidReference."""
    lines = []
    for line in _lines(file, text):
        if line.fields[0].upper() not in _RTTM_TYPES:
            raise line.wrong("the first field is not an RTTM type such as SPEAKER")
        if line.fields[0].upper() == "SPEAKER":
            line.needs(8, "SPEAKER <recording> <channel> <start> <duration> <NA> <NA> <speaker>")
            lines.append(line)
    turns = []
    for line in _about(lines, 1, recording):
        start = line.seconds(3, "start")
        turns.append((line.fields[7], start, round(start + line.seconds(4, "duration"), 6)))
    return tuple(sorted(turns, key=lambda turn: (turn[1], turn[2], turn[0])))


def read_stm(file: str, text: str, recording: str) -> Stm:
    """What is said by whom, and what is not scored. Raises InvalidReference.

    Of alternatives `{a / b}` the first counts; optional words `(uh)` count; hesitations `(%uh)`, sounds in brackets
    and category labels `<o,f0,male>` do not.
    """
    lines = list(_lines(file, text))
    for line in lines:
        line.needs(5, "<recording> <channel> <speaker> <start> <end> [<label>] <text>")
    utterances: list[Utterance] = []
    ignored: list[Span] = []
    for line in _about(lines, 0, recording):
        start, end = line.span(3, 4)
        words = line.fields[5:]
        if words and words[0].startswith("<") and words[0].endswith(">"):
            words = words[1:]
        if _IGNORED in words:
            ignored.append((start, end))
        elif line.fields[2] != _NOBODY and (said := _words_only(" ".join(words))):
            utterances.append(Utterance(line.fields[2], start, end, said))
    return Stm(tuple(sorted(utterances, key=lambda one: (one.start or 0.0, one.end or 0.0))), tuple(ignored))


def read_ctm(file: str, text: str, recording: str) -> tuple[Spoken, ...]:
    """The words with their times, in order; of alternatives the first. Raises InvalidReference."""
    lines: list[_Line] = []
    skipping = False
    for line in _lines(file, text):
        line.needs(5, "<recording> <channel> <start> <duration> <word> [<confidence> <type> <speaker>]")
        if line.fields[4] in ("<ALT_BEGIN>", "<ALT>", "<ALT_END>"):
            skipping = line.fields[4] == "<ALT>" or (skipping and line.fields[4] != "<ALT_END>")
        elif not skipping:
            lines.append(line)
    words: list[Spoken] = []
    for line in _about(lines, 0, recording):
        kind = line.fields[6].lower() if len(line.fields) > 6 else "lex"
        if kind not in _WORD_TYPES or not (said := _words_only(line.fields[4])):
            continue
        start = line.seconds(2, "start")
        speaker = line.fields[7] if len(line.fields) > 7 and line.fields[7].upper() not in ("<NA>", "NA") else None
        words.append(Spoken(said, start, round(start + line.seconds(3, "duration"), 6), speaker))
    return tuple(sorted(words, key=lambda word: word.start or 0.0))


def read_uem(file: str, text: str, recording: str) -> tuple[Span, ...]:
    """The stretches that are scored, in order. Raises InvalidReference."""
    lines = list(_lines(file, text))
    for line in lines:
        line.needs(4, "<recording> <channel> <start> <end>")
    return tuple(sorted(line.span(2, 3) for line in _about(lines, 0, recording)))


def _lines(file: str, text: str) -> Iterator[_Line]:
    for number, content in enumerate(text.splitlines(), start=1):
        fields = content.partition(";;")[0].split()
        if fields:
            yield _Line(file, number, fields)


def _about(lines: Sequence[_Line], place: int, recording: str) -> Sequence[_Line]:
    """The lines about the recording; all of them when the file knows one only, whatever it is called there."""
    names = {line.fields[place] for line in lines}
    if len(names) <= 1:
        return lines
    if recording not in names:
        raise InvalidReference(f"{lines[0].file} covers {len(names)} recordings, none named {recording!r} (field {place + 1}).")
    return [line for line in lines if line.fields[place] == recording]


def _words_only(text: str) -> str:
    """The words alone: without marks of alternatives, hesitations and sounds."""
    text = re.sub(r"\{([^/{}]*)(/[^{}]*)?\}", r" \1 ", text)
    text = re.sub(r"\[[^\]]*\]|<[^>]*>", " ", text)
    words = (word.strip("()") for word in text.split())
    return " ".join(word for word in words if word and not word.startswith("%") and word != "@")
