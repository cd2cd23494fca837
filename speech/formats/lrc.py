"""LRC: lines that music and audiobook players show while they play; with the words' times where those are asked for.

There is no standard. This is what the readers agree on (en.wikipedia.org/wiki/LRC_(file_format), MobileRead's wiki, the parsers
of players): `[mm:ss.xx]text` with two digits after the point, minutes that go on beyond 59, a speaker as `NAME: text`, and
for words the enhanced form, `<mm:ss.xx>` before each and after the last.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise

from speech.formats.cues import Cue, Token
from speech.formats.lines import one_line
from speech.formats.options import RenderOptions
from speech.formats.whisperx_cues import LONG_PAUSE, cues
from stenoflow.types import Transcript


def lrc(transcript: Transcript, options: RenderOptions) -> str:
    """A line per segment, or per `max_line_width`; after a long pause and at the end an empty one, which clears the screen."""
    header = [f"[ti:{_plain(options.uri)}]", f"[length:{_time(transcript.duration)[:-3]}]", "[re:Stenoflow]"]
    found = cues(transcript, options.model_copy(update={"highlight_words": False}))
    lines: list[str] = []
    for cue, after in pairwise([*found, None]):
        assert cue is not None
        lines += _lines(cue, timed=options.highlight_words)
        if after is None or after.start - cue.end > LONG_PAUSE * 1000:
            lines.append(f"[{_time(cue.end / 1000)}]")
    return "".join(f"{line}\n" for line in [*header, *lines])


def _lines(cue: Cue, *, timed: bool) -> Iterator[str]:
    speaker = cue.tokens[0].speaker
    start = cue.start / 1000
    for number, row in enumerate(_rows(cue.tokens)):
        start = max(start, row[0].start)
        label = f"{_plain(speaker)}: " if speaker is not None and number == 0 else ""
        text = _timed(row, start) if timed and all(token.timed for token in row) else _text(row)
        yield f"[{_time(start)}]{label}{text}"


def _rows(tokens: Iterable[Token]) -> list[list[Token]]:
    rows: list[list[Token]] = []
    for token in tokens:
        if rows and token.lead != "\n":
            rows[-1].append(token)
        else:
            rows.append([token._replace(lead="")])
    return rows


def _text(row: list[Token]) -> str:
    return "".join(f"{token.lead}{_plain(token.text)}" for token in row)


def _timed(row: list[Token], start: float) -> str:
    """`<00:12.00>So, <00:12.31>how<00:12.60>`"""
    text, now = "", start
    for token in row:
        now = max(now, token.start)
        text += f"{token.lead}<{_time(now)}>{_plain(token.text)}"
    return f"{text}<{_time(max(now, row[-1].end))}>"


def _plain(text: str) -> str:
    """LRC has no escapes: brackets would begin a tag, and so would a time in angle ones."""
    return re.sub(r"<(\d[\d:.]*)>", r"(\1)", one_line(text)).replace("[", "(").replace("]", ")")


def _time(seconds: float) -> str:
    """`mm:ss.xx`, also beyond an hour: few readers know hours."""
    hundredths = max(round(seconds * 100), 0)
    return f"{hundredths // 6000:02d}:{hundredths // 100 % 60:02d}.{hundredths % 100:02d}"
