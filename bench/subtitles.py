"""How often subtitles break the rules of broadcasters: `python -m bench.subtitles [NAME…]`.

Each recording (`bench.recordings`) is transcribed once; its words are then written as srt by our default layout, by WhisperX's writer with
the defaults of its command line, and by stable-ts where that is installed, and the three files are read and judged by the same
rules. Prints one Markdown table of the share of subtitles, in percent, that break each rule.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from bench.meeting import meeting
from bench.recordings import build_all
from bench.tables import markdown
from speech.formats import RenderOptions, render_text
from speech.formats.broadcast import BINDING, GAP, LINES, LONGEST, SHORTEST, SPEED, WIDE_WIDTH, WIDTH, columns
from stenoflow import Transcript, transcribe

MEETING = "meeting"
_LABEL = re.compile(r"^(- )?(\[?(Speaker|SPEAKER)[ _]\d+\]?: )?")
NAMES = ("sample", "en", "fr", "es", "conversation", MEETING)


class Shown(NamedTuple):
    """One subtitle of a file: seconds, and its lines."""

    start: float
    end: float
    lines: tuple[str, ...]


def read_srt(text: str) -> list[Shown]:
    """The subtitles of an srt file."""
    shown: list[Shown] = []
    for block in re.split(r"\n\s*\n", text.strip()):
        rows = block.splitlines()
        times = re.findall(r"(\d+):(\d+):(\d+)[,.](\d+)", rows[1]) if len(rows) > 2 else []
        if len(times) == 2:
            start, end = (int(h) * 3600 + int(m) * 60 + int(s) + int(ms) / 1000 for h, m, s, ms in times)
            shown.append(Shown(start, end, tuple(re.sub("<[^>]*>|\u200f", "", row) for row in rows[2:])))
    return shown


def broken(shown: Sequence[Shown], language: str) -> Iterator[set[str]]:
    """The rules that each subtitle breaks."""
    width = WIDE_WIDTH if language in ("ja", "zh", "yue", "ko") else WIDTH
    binding = BINDING.get(language, frozenset())
    for cue, after in pairwise([*shown, None]):
        assert cue is not None
        seconds = cue.end - cue.start
        room = (after.start if after is not None else cue.end + LONGEST) - GAP - cue.start
        read = sum(columns(_LABEL.sub("", row)) for row in cue.lines)
        words = [row.split() for row in cue.lines if row.split()]
        rules = {
            "width": any(columns(row) > width for row in cue.lines),
            "lines": len(cue.lines) > LINES,
            "under 1 s": seconds < SHORTEST - 0.001 <= room,
            "over 7 s": seconds > LONGEST + 0.001,
            "speed": SPEED * seconds + 0.5 < read <= SPEED * room,
            "gap": after is not None and after.start - cue.end < GAP - 0.002,
            "orphan": sum(map(len, words)) == 1 and not re.search(r"[.!?…]\W*$", cue.lines[0]),
            "break": any(row[-1].lower() in binding for row in words),
        }
        if read > SPEED * room or room < SHORTEST - 0.001:
            rules[FAST] = True
        yield {rule for rule, is_broken in rules.items() if is_broken}


def ours(transcript: Transcript) -> str:
    return render_text(transcript, "srt", RenderOptions())


def whisperx(transcript: Transcript) -> str:
    """WhisperX's file, as its command line writes it."""
    from whisperx.utils import get_writer

    with tempfile.TemporaryDirectory() as folder:
        options = {"max_line_width": None, "max_line_count": None, "highlight_words": False}
        get_writer("srt", folder)(json.loads(render_text(transcript, "json")), "talk.wav", options)
        return (Path(folder) / "talk.srt").read_text()


def stable_ts(transcript: Transcript) -> str:
    """stable-ts's file, its words grouped as it does by default. Raises ImportError."""
    import stable_whisper

    words = [
        [{"word": f" {word.word}", "start": word.start, "end": word.end, "probability": word.score} for word in segment.words]
        for segment in transcript.segments
        if segment.words
    ]
    result = stable_whisper.WhisperResult(words, force_order=True).regroup(True)
    return str(result.to_srt_vtt(word_level=False))


WRITERS: dict[str, Callable[[Transcript], str]] = {"stenoflow": ours, "whisperx": whisperx, "stable-ts": stable_ts}
FAST = "fast speech"
"""No rule: the next subtitle begins too soon for this one to be shown long enough."""
RULES = ("width", "lines", "under 1 s", "over 7 s", "speed", "gap", "orphan", "break")


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME")
    names = parser.parse_args(arguments).names
    rows = [["recording", "writer", "subtitles", *RULES, FAST, "any rule"], ["---"] * 2 + ["--:"] * (len(RULES) + 3)]
    recordings = build_all([name for name in names if name != MEETING], print)
    for recording in [*recordings, *([meeting()] if MEETING in names else [])]:
        transcript = transcribe(recording.audio, language=recording.truth().language)
        rows += [row for writer in WRITERS if (row := _row(recording.audio.stem, writer, transcript)) is not None]
    print(markdown(rows))


def _row(name: str, writer: str, transcript: Transcript) -> list[str] | None:
    try:
        shown = read_srt(WRITERS[writer](transcript))
    except ImportError as error:
        print(f"{writer} left out: {error}", file=sys.stderr)
        return None
    found: list[set[str]] = list(broken(shown, transcript.language))
    shares = [sum(rule in rules for rules in found) for rule in (*RULES, FAST)] + [sum(bool(rules - {FAST}) for rules in found)]
    return [name, writer, str(len(shown)), *(f"{100 * share / max(len(shown), 1):.0f}" for share in shares)]


if __name__ == "__main__":
    main(sys.argv[1:])
