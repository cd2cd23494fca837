"""A voice on each channel, with and without bleed: `python -m bench.channels [--half choose report] [--kind call tracks]`.

Calls of two and sessions of three, a channel each, half of whose turns overlap: with no bleed, and with every voice in every other channel
20 dB quieter (as a line carries it, and as a room does, late and with reverberation) or 12 dB quieter. Each is transcribed by
`steno transcribe` with `--channels separate` and mixed. `doubled` are words that two speakers have at the same time. The bounds of `speech/bleed.py` were chosen on
the half `choose`; docs/decisions/channels.md says more.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.metrics import wrong_speakers
from bench.peers import Outcome
from bench.recordings import JOE_SENTENCES, Truth, laid_out, levelled
from bench.speakers import resampled
from bench.systems import stenoflow
from bench.tables import markdown
from bench.voices import SAMPLE_RATE, Clip, SpeechUnavailableError, prompts, readings, synthesised
from speech.scoring import Spoken, speaker_attributed_errors, texts_by_speaker, word_errors

KINDS = {"call": (2, 50.0), "tracks": (3, 60.0)}
"""Voices, and seconds."""
BLEEDS: dict[str, tuple[float | None, bool]] = {
    "none": (None, False),
    "-20 dB": (-20.0, False),
    "-20 dB, room": (-20.0, True),
    "-12 dB, room": (-12.0, True),
}
"""Its level, and whether it comes through a room."""
_AT_ONCE = 0.4
"""Seconds between the starts of a word and of its double."""


class Session(NamedTuple):
    name: str
    language: str
    channels: np.ndarray
    """(channels, samples)"""
    truth: Truth


def voices_of(half: str) -> tuple[str, list[list[Clip]]]:
    """The half's language and voices: English ones for `choose`, Spanish and Italian for `report`. Raises SpeechUnavailableError."""
    if half == "choose":
        return "en", [prompts("en"), synthesised(JOE_SENTENCES), readings()]
    spanish = prompts("es")
    return "es", [spanish[::2], [resampled(clip, "slower", 8, 7) for clip in spanish[1::2]], prompts("it")]


def sessions(half: str, kinds: Sequence[str]) -> Iterator[Session]:
    """Without bleed."""
    language, voices = voices_of(half)
    for kind in kinds:
        count, seconds = KINDS[kind]
        chance = random.Random(f"{half} {kind}")
        left = [chance.sample(clips, len(clips)) for clips in voices[:count]]
        left = [[clip for clip in clips if len(clip.samples) < 12 * SAMPLE_RATE] for clips in left]
        names = [own[0].speaker for own in left]
        clips: list[Clip] = []
        gaps: list[float] = []
        lasted = 0.0
        while lasted < seconds and all(left):
            others = [own for own in left if not clips or own[-1].speaker != clips[-1].speaker]
            clips.append(levelled(chance.choice(others).pop()))
            gaps.append(chance.uniform(-1.2, -0.4) if chance.random() < 0.5 else chance.uniform(0.3, 1.2))
            lasted += len(clips[-1].samples) / SAMPLE_RATE + gaps[-1]
        mixed, turns = laid_out(clips, gaps)
        channels = np.stack([laid_out([_only(clip, name) for clip in clips], gaps)[0] for name in names])
        rows = sorted((turn.speaker, *span) for turn in turns for span in turn.active)
        yield Session(
            f"{half} {kind}", language, channels, Truth(kind, language, len(mixed) / SAMPLE_RATE, tuple(turns), tuple(rows))
        )


def _only(clip: Clip, speaker: str) -> Clip:
    """The clip on the channel of that speaker: silence on the others."""
    return clip if clip.speaker == speaker else Clip(clip.speaker, clip.text, np.zeros_like(clip.samples), clip.words)


def with_bleed(channels: np.ndarray, level: float | None, *, room: bool) -> np.ndarray:
    """Every channel with all others in it, that many dB quieter."""
    if level is None:
        return channels
    path = np.ones(1, np.float32)
    if room:
        length = round(0.15 * SAMPLE_RATE)
        noise = np.random.default_rng(4).standard_normal(length) * np.exp(-np.arange(length) / (0.03 * SAMPLE_RATE))
        path = np.concatenate([np.zeros(round(0.008 * SAMPLE_RATE)), [1.0], 0.25 * noise])
        path /= np.sqrt((path**2).sum())
    heard = np.stack([np.convolve(channel, path)[: channels.shape[1]] for channel in channels])
    others = heard.sum(axis=0, keepdims=True) - heard
    return np.asarray(channels + 10 ** (level / 20) * others, np.float32)


def rows_of(session: Session, work: Path) -> Iterator[list[str]]:
    import soundfile

    for bleed, (level, room) in BLEEDS.items():
        audio = work / f"{session.name} {bleed}.wav"
        soundfile.write(audio, with_bleed(session.channels, level, room=room).T, SAMPLE_RATE, subtype="PCM_16")
        cells = [session.name, bleed]
        for way in ("separate", "mix"):
            options = ("--channels", way, "--num-speakers", str(len(session.channels)))
            cells += _scored(session, stenoflow(audio, "base", language=session.language, options=options))
        yield cells


def _scored(session: Session, outcome: Outcome) -> list[str]:
    truth, language = session.truth, session.language
    said = [Spoken(word, None, None, turn.speaker) for turn in truth.turns for word in turn.text.split()]
    true = {str(speaker): text for speaker, text in texts_by_speaker(said).items()}
    words = outcome.words or []
    by_speaker = speaker_attributed_errors(true, texts_by_speaker(words), language)
    wrong, matched = wrong_speakers(said, words, language)
    rate = word_errors(truth.text, outcome.text, language).rate
    return [
        f"{100 * rate:.1f} %",
        f"{100 * by_speaker.rate:.1f} %",
        str(by_speaker.insertions),
        f"{wrong}/{matched}",
        str(doubled(words)),
    ]


def doubled(words: Sequence[Spoken]) -> int:
    """Words that another speaker has at the same time."""
    found = 0
    for one, other in combinations(
        sorted((word for word in words if word.start is not None), key=lambda word: word.start or 0.0), 2
    ):
        same = _bare(one.word) == _bare(other.word) and one.speaker != other.speaker
        found += same and abs((one.start or 0.0) - (other.start or 0.0)) < _AT_ONCE
    return found


def _bare(word: str) -> str:
    return re.sub(r"\W", "", word.casefold())


def table(rows: Sequence[Sequence[str]]) -> str:
    columns = [
        f"{what}, {way}" for way in ("separate", "mix") for what in ("WER", "cpWER", "insertions", "wrong words", "doubled")
    ]
    return markdown([["session", "bleed", *columns], ["---"] * 12, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.channels", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--half", nargs="+", choices=("choose", "report"), default=("choose", "report"), help="default: both")
    parser.add_argument("--kind", nargs="+", choices=tuple(KINDS), default=tuple(KINDS), help="default: both")
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as work:
        try:
            for half in asked.half:
                for session in sessions(half, asked.kind):
                    for row in rows_of(session, Path(work)):
                        print(" | ".join(row), file=sys.stderr, flush=True)
                        rows.append(row)
        except SpeechUnavailableError as error:
            sys.exit(str(error))
    print(table(rows))


if __name__ == "__main__":
    main()
