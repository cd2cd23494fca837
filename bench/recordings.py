"""Reference recordings with truth, built the same to the byte each time: `python -m bench.recordings [NAME…]`.

    sample        30 s of a real telephone call of two, from pyannote.audio's wheel, with its own transcript and turns
    en fr es it ru   about two minutes of real prompts in one voice, with pauses
    conversation  about two minutes of three voices (prompts, a reader, Piper's `joe`) that now and then overlap; the
                  true time of joe's words is known

Each is three files in the cache: `NAME.flac` (16 kHz mono), `NAME.json` and `NAME.rttm`. The JSON holds
`{name, language, duration, segments: [{speaker, start, end, text, active: [[start, end]], words: [{word, start, end}]}]}`,
times in seconds, `words` where their times are known: a reference as `steno evaluate` reads it. The RTTM says who is audible when, without the silence inside turns.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.voices import (
    SAMPLE_RATE,
    Clip,
    Samples,
    SpeechUnavailableError,
    cache_folder,
    prompts,
    readings,
    sample_folder,
    speech_regions,
    synthesised,
)

RECIPE = 3
"""Raised when the same name gives other files; older ones are then built again."""

_PROMPT_SECONDS = 120.0
_NOISE = 10 ** (-66 / 20)
"""Background noise: files of digital silence do not occur outside of laboratories."""
_SAMPLE_SPEAKERS = {"speaker90": "Diane", "speaker91": "Sheila"}

JOE_SENTENCES = (
    "Good afternoon and welcome to our monthly review.",
    "First I would like to hear how the new service is doing.",
    "Most people found the right page without any help.",
    "We still have a small budget for translation.",
    "Maybe we should ask the customers before we change anything.",
    "The second test begins after the holidays.",
    "Please write down what you think by Thursday evening.",
    "Nobody has complained about the sound quality so far.",
    "Could somebody check whether the train tickets were booked?",
    "Our partners in Norway want to start a little earlier.",
    "Let us keep the old design until the numbers are clear.",
    "Thank you very much, that was a useful discussion.",
)


@dataclass(frozen=True)
class Turn:
    """One utterance: `active` are the stretches with sound in it; `words` are (word, start, end) where they are known."""

    speaker: str
    start: float
    end: float
    text: str
    active: tuple[tuple[float, float], ...]
    words: tuple[tuple[str, float, float], ...] | None = None


@dataclass(frozen=True)
class Truth:
    """What is true of a recording; `activity` is (speaker, start, end), as in its RTTM."""

    name: str
    language: str
    duration: float
    turns: tuple[Turn, ...]
    activity: tuple[tuple[str, float, float], ...]

    @property
    def text(self) -> str:
        return " ".join(turn.text for turn in self.turns)

    @property
    def speakers(self) -> set[str]:
        return {speaker for speaker, _, _ in self.activity}


@dataclass(frozen=True)
class Recording:
    """A reference recording on disk."""

    audio: Path

    def truth(self) -> Truth:
        return load_truth(self.audio.with_suffix(".json"))


def load_truth(path: Path) -> Truth:
    """The truth in a JSON file; the activity comes from the RTTM beside it."""
    data = json.loads(path.read_text())
    turns = tuple(
        Turn(
            speaker=turn["speaker"],
            start=turn["start"],
            end=turn["end"],
            text=turn["text"],
            active=tuple((start, end) for start, end in turn["active"]),
            words=tuple((word["word"], word["start"], word["end"]) for word in turn.get("words", ())) or None,
        )
        for turn in data["segments"]
    )
    activity = tuple(read_rttm(path.with_suffix(".rttm").read_text()))
    return Truth(data["name"], data.get("language", "en"), float(data["duration"]), turns, activity)


def read_rttm(text: str) -> list[tuple[str, float, float]]:
    """(speaker, start, end) of every SPEAKER line."""
    rows = [line.split() for line in text.splitlines() if line.startswith("SPEAKER")]
    return [(row[7], float(row[3]), round(float(row[3]) + float(row[4]), 3)) for row in rows]


# -- composing ------------------------------------------------------------------------------------------------------------


def _monologue(language: str) -> tuple[Samples, list[Turn]]:
    clips = prompts(language)
    chance = random.Random(f"steno {language}")
    chance.shuffle(clips)
    chosen: list[Clip] = []
    while clips and sum(len(clip.samples) for clip in chosen) < _PROMPT_SECONDS * SAMPLE_RATE * 0.8:
        chosen.append(clips.pop())
    return laid_out(chosen, [chance.uniform(0.3, 1.5) for _ in chosen])


def _conversation() -> tuple[Samples, list[Turn]]:
    chance = random.Random("steno conversation")
    allison = [clip for clip in prompts("en") if len(clip.samples) < 6 * SAMPLE_RATE]
    chance.shuffle(allison)
    queues = {"joe": synthesised(JOE_SENTENCES), "allison": allison[: len(JOE_SENTENCES)], "reader": readings()}
    chosen: list[Clip] = []
    while any(queues.values()):
        last = chosen[-1].speaker if chosen else ""
        others = [name for name, queue in queues.items() if queue and name != last] or [name for name in queues if queues[name]]
        # By what is left: nobody is kept for a long monologue at the end.
        speaker = chance.choices(others, weights=[len(queues[name]) for name in others])[0]
        chosen.append(queues[speaker].pop(0))
    gaps = [chance.uniform(-0.6, -0.2) if chance.random() < 0.2 else chance.uniform(0.2, 1.0) for _ in chosen]
    # Nobody talks over themselves.
    gaps = [
        abs(gap) if i + 1 < len(chosen) and chosen[i].speaker == chosen[i + 1].speaker else gap for i, gap in enumerate(gaps)
    ]
    return laid_out([levelled(clip) for clip in chosen], gaps)


def levelled(clip: Clip) -> Clip:
    """The clip at the loudness of the prompt voice, so that no speaker is known by level alone."""
    loud = float(np.sqrt(np.mean(clip.samples.astype(np.float64) ** 2)))
    gain = min(10 ** (-22 / 20) / max(loud, 1e-6), 0.95 / max(float(np.abs(clip.samples).max()), 1e-6))
    return Clip(clip.speaker, clip.text, (clip.samples * gain).astype(np.float32), clip.words)


def laid_out(clips: Sequence[Clip], gaps: Sequence[float], *, lead: float = 1.0) -> tuple[Samples, list[Turn]]:
    """The clips one after the other, each followed by its gap in seconds (negative: the next one begins before its end)."""
    turns: list[Turn] = []
    length = int((lead * 2 + sum(len(clip.samples) / SAMPLE_RATE for clip in clips) + sum(gaps)) * SAMPLE_RATE)
    mixed = np.random.default_rng(0).standard_normal(length).astype(np.float32) * np.float32(_NOISE)
    at = int(lead * SAMPLE_RATE)
    for clip, gap in zip(clips, gaps, strict=True):
        mixed[at : at + len(clip.samples)] += clip.samples
        turns.append(_turn(clip, at / SAMPLE_RATE))
        at += len(clip.samples) + int(gap * SAMPLE_RATE)
    return mixed, turns


def _turn(clip: Clip, at: float) -> Turn:
    active = tuple((round(at + start, 3), round(at + end, 3)) for start, end in speech_regions(clip.samples))
    words = clip.words and tuple((word, round(at + start, 3), round(at + end, 3)) for word, start, end in clip.words)
    return Turn(clip.speaker, active[0][0], active[-1][1], clip.text, active, words)


def call() -> tuple[Samples, list[Turn], list[tuple[str, float, float]]]:
    import soundfile

    folder = sample_folder()
    samples, rate = soundfile.read(folder / "sample.wav", dtype="float32")
    if rate != SAMPLE_RATE:
        raise SpeechUnavailableError(
            "pyannote.audio's sample recording is not the one this benchmark knows; pin pyannote.audio 4."
        )
    turns = []
    for line in (folder / "sample.stm").read_text().splitlines():
        found = re.match(r"\S+ \S+ (\S+) ([\d.]+) ([\d.]+) (.*)", line)
        if found:
            start, end = float(found[2]), float(found[3])
            turns.append(Turn(found[1], start, end, found[4].strip(), ((start, end),)))
    activity = read_rttm((folder / "sample.rttm").read_text())
    return samples, turns, [(_SAMPLE_SPEAKERS[speaker], start, end) for speaker, start, end in activity]


# -- writing --------------------------------------------------------------------------------------------------------------

_MONOLOGUES = ("en", "fr", "es", "it", "ru")
NAMES = ("sample", *_MONOLOGUES, "conversation")


def build(name: str, folder: Path | None = None) -> Recording:
    """The named recording in `folder` (by default the cache), built if it is not there. Raises SpeechUnavailableError."""
    if name not in NAMES:
        raise ValueError(f"No reference recording {name!r}; there are {', '.join(NAMES)}.")
    folder = folder or cache_folder()
    recording = Recording(folder / f"{name}.flac")
    if is_current(recording.audio):
        return recording
    folder.mkdir(parents=True, exist_ok=True)
    if name == "sample":
        samples, turns, activity = call()
    else:
        samples, turns = _conversation() if name == "conversation" else _monologue(name)
        activity = [(turn.speaker, start, end) for turn in turns for start, end in turn.active]
    language = name if name in _MONOLOGUES else "en"
    rows = tuple(sorted(activity, key=lambda row: (row[1], row[2], row[0])))
    write(recording.audio, samples, Truth(name, language, len(samples) / SAMPLE_RATE, tuple(turns), rows))
    return recording


def is_current(audio: Path) -> bool:
    truth = audio.with_suffix(".json")
    if not (audio.is_file() and truth.is_file() and audio.with_suffix(".rttm").is_file()):
        return False
    return bool(json.loads(truth.read_text()).get("recipe") == RECIPE)


def write(audio: Path, samples: Samples, truth: Truth) -> None:
    import soundfile

    pcm = np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16)
    soundfile.write(audio, pcm, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    audio.with_suffix(".rttm").write_text(
        "".join(
            f"SPEAKER {truth.name} 1 {start:.3f} {end - start:.3f} <NA> <NA> {speaker} <NA> <NA>\n"
            for speaker, start, end in truth.activity
        )
    )
    data: dict[str, Any] = {
        "name": truth.name,
        "language": truth.language,
        "recipe": RECIPE,
        "duration": truth.duration,
        "segments": [_segment(turn) for turn in truth.turns],
    }
    # Last, because its presence says that the recording is whole.
    audio.with_suffix(".json").write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n")


def _segment(turn: Turn) -> dict[str, Any]:
    words = [{"word": word, "start": start, "end": end} for word, start, end in turn.words or ()]
    return {name: value for name, value in vars(turn).items() if name != "words"} | ({"words": words} if words else {})


def build_all(names: Iterable[str], say: Callable[[str], None]) -> list[Recording]:
    """The available ones of the named recordings; `say` receives each unavailable one, with the reason."""
    recordings = []
    for name in names:
        try:
            recordings.append(build(name))
        except SpeechUnavailableError as error:
            say(f"{name}: left out. {error}")
    return recordings


def tiled(path: Path, hours: float, folder: Path | None = None) -> Path:
    """A FLAC of `hours` hours: the recording over and over, the last time cut short. Written once, in blocks."""
    import soundfile

    target = (folder or cache_folder()) / f"{path.stem}-{hours:g}h.flac"
    if target.is_file():
        return target
    aside = target.with_suffix(".part")
    tile, rate = soundfile.read(path, dtype="int16")
    left = round(hours * 3600 * rate)
    with soundfile.SoundFile(aside, "w", rate, 1, format="FLAC", subtype="PCM_16") as file:
        while left > 0:
            file.write(tile[:left])
            left -= len(tile[:left])
    return aside.rename(target)


def main(names: Sequence[str]) -> None:
    for recording in build_all(names or NAMES, print):
        truth = recording.truth()
        print(f"{recording.audio}  {truth.duration:.0f} s, {len(truth.turns)} turns, {len(truth.speakers)} speakers")


if __name__ == "__main__":
    main(sys.argv[1:])
