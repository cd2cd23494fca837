"""Who speaks when, as a small SVG picture of our own making, for Prefect's views.

It has no background, and colours that can be read on white as on the dark theme's: a picture cannot know the theme.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from speech.formats.paragraphs import clock

WIDTH = 760
_LEFT, _RIGHT, _ROW, _BAR, _TOP, _BOTTOM = 124, 96, 26, 14, 14, 34
_INK = "#7b7d82"
_COLOURS = ("#3b6fd4", "#d0692a", "#3c9d6b", "#b5478f", "#8a6fd1", "#a98312", "#2a9cae", "#c94f4f", "#6b7f2a", "#94704f")
_MOST_ROWS = 20
_TICKS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600)
"""Seconds between two marks of the axis."""


class Span(NamedTuple):
    """Someone speaks from `start` to `end`, in seconds."""

    start: float
    end: float
    speaker: str


def timeline(spans: Sequence[Span], duration: float) -> str:
    """The picture as an SVG document: a row per speaker, most talkative first. Its size does not grow with the recording."""
    seconds: dict[str, float] = {}
    for span in spans:
        seconds[span.speaker] = seconds.get(span.speaker, 0.0) + span.end - span.start
    speakers = sorted(seconds, key=lambda speaker: (-seconds[speaker], speaker))
    shown, hidden = speakers[:_MOST_ROWS], len(speakers) - _MOST_ROWS
    height = _TOP + _ROW * len(shown) + _BOTTOM
    rows = [
        _row(number, speaker, seconds[speaker], [span for span in spans if span.speaker == speaker], duration)
        for number, speaker in enumerate(shown)
    ]
    more = f'<text x="{_LEFT}" y="{height - 4}" class="s">and {hidden} more</text>' if hidden > 0 else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">'
        f"<style>text{{font:12px system-ui,-apple-system,Segoe UI,Helvetica,Arial,sans-serif;fill:{_INK}}}.s{{font-size:11px}}</style>"
        f"{_axis(duration, height - _BOTTOM)}{''.join(rows)}{more}</svg>"
    )


def data_uri(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _row(number: int, speaker: str, seconds: float, spans: Iterable[Span], duration: float) -> str:
    middle = _TOP + _ROW * number + _ROW / 2
    name = speaker if len(speaker) <= 15 else f"{speaker[:14]}…"
    share = f"{seconds / duration:.0%}".replace("%", " %") if duration > 0 else ""
    strokes = "".join(f"M{start:.1f} {middle:.0f}h{end - start:.1f}" for start, end in _columns(spans, duration))
    right = WIDTH - _RIGHT
    return (
        f'<rect x="{_LEFT}" y="{middle - _BAR / 2:.0f}" width="{right - _LEFT}" height="{_BAR}" rx="2" fill="{_INK}" fill-opacity="0.12"/>'
        f'<path d="{strokes}" stroke="{_COLOURS[number % len(_COLOURS)]}" stroke-width="{_BAR}" fill="none"/>'
        f'<text x="{_LEFT - 10}" y="{middle + 4:.0f}" text-anchor="end">{escape(name)}</text>'
        f'<text x="{right + 10}" y="{middle + 4:.0f}" class="s">{clock(seconds)} · {share}</text>'
    )


def _columns(spans: Iterable[Span], duration: float) -> list[tuple[float, float]]:
    """Where the row is filled, in pixels: what is nearer than can be seen is drawn as one."""
    scale = (WIDTH - _RIGHT - _LEFT) / max(duration, 1e-9)
    drawn: list[tuple[float, float]] = []
    for span in sorted(spans):
        start, end = _LEFT + span.start * scale, _LEFT + min(span.end, duration) * scale
        end = max(end, start + 0.8)
        if drawn and start - drawn[-1][1] < 0.6:
            drawn[-1] = (drawn[-1][0], max(end, drawn[-1][1]))
        else:
            drawn.append((start, end))
    return drawn


def _axis(duration: float, bottom: float) -> str:
    step = next((tick for tick in _TICKS if duration / tick <= 8), _TICKS[-1])
    scale = (WIDTH - _RIGHT - _LEFT) / max(duration, 1e-9)
    marks = []
    for number in range(int(duration // step) + 1):
        x = _LEFT + number * step * scale
        marks.append(
            f'<path d="M{x:.1f} {_TOP - 4}V{bottom + 4}" stroke="{_INK}" stroke-opacity="0.3"/>'
            f'<text x="{x:.1f}" y="{bottom + 17}" text-anchor="middle" class="s">{clock(number * step)}</text>'
        )
    return "".join(marks)
