"""Subtitles before they are written: their words, and when each is shown. Which words share one is decided by the layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from speech.formats.lines import one_line
from speech.languages import WITHOUT_SPACES
from speech.sentences import characters, separators, shared_time
from stenoflow.types import Segment

SHORTEST_MS = 100
"""How long a subtitle is shown whose words have no duration."""


class Token(NamedTuple):
    """A word as it is laid out."""

    text: str
    lead: str
    """What stands before it: "", " " or a line break."""
    start: float
    end: float
    timed: bool
    """False where the time was spread over a segment without words."""
    speaker: str | None
    ends_segment: bool = False
    label: str = ""
    """Who speaks, shown before the word."""
    language: str = ""
    """Of the segment's text."""


class Cue(NamedTuple):
    """One subtitle: shown from `start` to `end`, in milliseconds."""

    start: int
    end: int
    tokens: tuple[Token, ...]
    highlighted: int | None = None
    """Index of the token that is being spoken."""

    def text(self, escape: Callable[[str], str] = str) -> str:
        parts: list[str] = []
        for index, token in enumerate(self.tokens):
            text = escape(token.text)
            parts.append(token.lead + escape(token.label) + (f"<u>{text}</u>" if index == self.highlighted else text))
        return "".join(parts)


def tokens_of(segment: Segment, language: str) -> list[Token]:
    """The segment's words; without any, its text in pieces that share its time by their length."""
    text = one_line(segment.text)
    default = "" if language in WITHOUT_SPACES else " "
    words = [(one_line(word.word), word.start, word.end) for word in segment.words]
    words = [word for word in words if word[0]]
    timed = bool(words)
    if not timed:
        pieces = characters(text) if language in WITHOUT_SPACES else text.split(" ") if text else []
        words = list(shared_time(pieces, segment.start, segment.end))
    leads = separators([word for word, _, _ in words], text, language)
    return [
        Token(
            word,
            lead if index else default,
            start,
            end,
            timed,
            segment.speaker,
            ends_segment=index + 1 == len(words),
            language=language,
        )
        for index, ((word, start, end), lead) in enumerate(zip(words, leads, strict=True))
    ]


def highlights(cue: Cue) -> list[Cue]:
    """The subtitle once per word while it is spoken, and plain in the gaps between words."""
    found: list[Cue] = []
    timed = [index for index, token in enumerate(cue.tokens) if token.timed]
    last = cue.start
    for position, index in enumerate(timed):
        start, end = max(milliseconds(cue.tokens[index].start), last), milliseconds(cue.tokens[index].end)
        if position + 1 < len(timed):
            end = min(end, max(milliseconds(cue.tokens[timed[position + 1]].start), start))
        if start > last:
            found.append(cue._replace(start=last, end=start))
            last = start
        if end > start:
            found.append(cue._replace(start=start, end=end, highlighted=index))
            last = end
    return found or [cue]


def in_sequence(found: list[Cue]) -> list[Cue]:
    """The same subtitles, each ending no later than the next begins and none empty."""
    result: list[Cue] = []
    cursor = 0
    for index, cue in enumerate(found):
        start = max(cue.start, cursor)
        end = cue.end if cue.end > start else start + SHORTEST_MS
        if index + 1 < len(found) and start < found[index + 1].start < end:
            end = found[index + 1].start
        result.append(cue._replace(start=start, end=end))
        cursor = end
    return result


def milliseconds(seconds: float) -> int:
    return max(round(seconds * 1000.0), 0)
