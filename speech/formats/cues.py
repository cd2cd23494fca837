"""Subtitles before they are written: which words share a cue, where its lines break, when it is shown.

The layout is that of `whisperx.utils.SubtitlesWriter` with its faults mended; `docs/formats.md` lists them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import NamedTuple

from speech.formats.lines import one_line
from speech.formats.options import RenderOptions
from speech.languages import WITHOUT_SPACES
from speech.sentences import separators
from stenoflow.types import Segment, Transcript

LONG_PAUSE = 3.0
"""Seconds between two words' starts that end a subtitle, where subtitles are filled up to max_line_count."""
UNBOUNDED = 1000
"""Characters per line when no width is asked for; WhisperX's."""
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


class Cue(NamedTuple):
    """One subtitle: shown from `start` to `end`, in milliseconds."""

    start: int
    end: int
    tokens: tuple[Token, ...]
    highlighted: int | None = None
    """Index of the token that is being spoken."""

    def text(self, escape: Callable[[str], str] = str) -> str:
        speaker = self.tokens[0].speaker
        parts = [escape(_prefix(speaker))]
        for index, token in enumerate(self.tokens):
            text = escape(token.text)
            parts.append(token.lead + (f"<u>{text}</u>" if index == self.highlighted else text))
        return "".join(parts)


def cues(transcript: Transcript, options: RenderOptions) -> list[Cue]:
    """The subtitles in order; none overlaps the next, each lasts longer than nothing and has one speaker."""
    found: list[Cue] = []
    for group in _groups(transcript, options):
        whole = Cue(_ms(min(token.start for token in group)), _ms(max(token.end for token in group)), group)
        found.extend(_highlights(whole) if options.highlight_words else [whole])
    return _in_sequence(found)


def _groups(transcript: Transcript, options: RenderOptions) -> Iterator[tuple[Token, ...]]:
    """The words of one subtitle each, with line breaks where `max_line_width` asks for them.

    With a line count subtitles are filled across segments, up to a long pause or another speaker; else a segment is one.
    """
    width, count = options.max_line_width or UNBOUNDED, options.max_line_count
    fill = options.max_line_width is not None and count is not None
    group: list[Token] = []
    line_length, line_count, last = 0, 1, 0.0
    for segment in transcript.segments:
        for position, token in enumerate(_tokens(segment, _text_language(transcript))):
            pause = fill and bool(group) and token.timed and token.start - last > LONG_PAUSE
            other = bool(group) and token.speaker != group[0].speaker
            new_segment = position == 0 and bool(group) and not fill
            room = line_length + len(token.lead) + len(token.text) <= width
            if group and room and not (pause or other or new_segment):
                group.append(token)
                line_length += len(token.lead) + len(token.text)
            elif not group or other or new_segment or (count is not None and (pause or line_count >= count)):
                if group:
                    yield tuple(group)
                group = [token._replace(lead="")]
                line_length, line_count = len(_prefix(token.speaker)) + len(token.text), 1
            else:
                group.append(token._replace(lead="\n"))
                line_length = len(token.text)
                line_count += 1
            last = token.start
    if group:
        yield tuple(group)


def _tokens(segment: Segment, language: str) -> list[Token]:
    """The segment's words; without any, its text in pieces that share its time by their length."""
    text = one_line(segment.text)
    default = "" if language in WITHOUT_SPACES else " "
    words = [(one_line(word.word), word.start, word.end) for word in segment.words]
    words = [word for word in words if word[0]]
    timed = bool(words)
    if not timed:
        words = _spread(_pieces(text, language), segment.start, segment.end)
    leads = separators([word for word, _, _ in words], text, language)
    return [
        Token(word, lead if index else default, start, end, timed, segment.speaker)
        for index, ((word, start, end), lead) in enumerate(zip(words, leads, strict=True))
    ]


def _pieces(text: str, language: str) -> list[str]:
    """What a line may be broken between: words, or in scripts without spaces characters with their marks."""
    if language not in WITHOUT_SPACES:
        return text.split(" ") if text else []
    pieces: list[str] = []
    for piece in re.findall(r"[!-~]+|\S", text):
        if pieces and unicodedata.category(piece[0]).startswith("M"):
            pieces[-1] += piece
        else:
            pieces.append(piece)
    return pieces


def _spread(pieces: list[str], start: float, end: float) -> list[tuple[str, float, float]]:
    total = sum(map(len, pieces))
    spread: list[tuple[str, float, float]] = []
    done = 0
    for piece in pieces:
        begin = start + (end - start) * done / total
        done += len(piece)
        spread.append((piece, begin, start + (end - start) * done / total))
    return spread


def _highlights(cue: Cue) -> list[Cue]:
    """The subtitle once per word while it is spoken, and plain in the gaps between words."""
    found: list[Cue] = []
    timed = [index for index, token in enumerate(cue.tokens) if token.timed]
    last = cue.start
    for position, index in enumerate(timed):
        start, end = max(_ms(cue.tokens[index].start), last), _ms(cue.tokens[index].end)
        if position + 1 < len(timed):
            end = min(end, max(_ms(cue.tokens[timed[position + 1]].start), start))
        if start > last:
            found.append(cue._replace(start=last, end=start))
            last = start
        if end > start:
            found.append(cue._replace(start=start, end=end, highlighted=index))
            last = end
    return found or [cue]


def _in_sequence(found: list[Cue]) -> list[Cue]:
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


def _prefix(speaker: str | None) -> str:
    return f"[{one_line(speaker)}]: " if speaker is not None else ""


def _text_language(transcript: Transcript) -> str:
    """A translation is English whatever was spoken."""
    return "en" if transcript.options.get("task") == "translate" else transcript.language


def _ms(seconds: float) -> int:
    return max(round(seconds * 1000.0), 0)
