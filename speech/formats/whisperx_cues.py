"""Which words share a subtitle, as `whisperx.utils.SubtitlesWriter` lays them out, its faults mended (`docs/formats.md`)."""

from __future__ import annotations

from collections.abc import Iterator

from speech.formats.cues import Cue, Token, highlights, in_sequence, milliseconds, tokens_of
from speech.formats.lines import one_line
from speech.formats.options import RenderOptions
from speech.languages import language_of_text
from stenoflow.types import Transcript

LONG_PAUSE = 3.0
"""Seconds between two words' starts that end a subtitle, where subtitles are filled up to max_line_count."""
UNBOUNDED = 1000
"""Characters per line when no width is asked for; WhisperX's."""


def cues(transcript: Transcript, options: RenderOptions) -> list[Cue]:
    """The subtitles in order; none overlaps the next, each lasts longer than nothing and has one speaker."""
    found: list[Cue] = []
    for group in _groups(transcript, options):
        start, end = min(token.start for token in group), max(token.end for token in group)
        whole = Cue(milliseconds(start), milliseconds(end), group)
        found.extend(highlights(whole) if options.highlight_words else [whole])
    return in_sequence(found)


def _groups(transcript: Transcript, options: RenderOptions) -> Iterator[tuple[Token, ...]]:
    """The words of one subtitle each, with line breaks where `max_line_width` asks for them.

    With a line count subtitles are filled across segments, up to a long pause or another speaker; else a segment is one.
    """
    width, count = options.max_line_width or UNBOUNDED, options.max_line_count
    fill = options.max_line_width is not None and count is not None
    group: list[Token] = []
    line_length, line_count, last = 0, 1, 0.0
    for segment in transcript.segments:
        for position, token in enumerate(tokens_of(segment, language_of_text(transcript, segment))):
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
                group = [token._replace(lead="", label=_prefix(token.speaker))]
                line_length, line_count = len(_prefix(token.speaker)) + len(token.text), 1
            else:
                group.append(token._replace(lead="\n"))
                line_length = len(token.text)
                line_count += 1
            last = token.start
    if group:
        yield tuple(group)


def _prefix(speaker: str | None) -> str:
    return f"[{one_line(speaker)}]: " if speaker is not None else ""
