"""The recording that speed is measured on: `python -m bench.meeting [--minutes 10]`.

Half a minute of a real telephone call of two, then three voices in turn (real prompts, a reader, Piper's `joe`, who also says the
prompts' sentences), a fifth of the changes overlapping: five speakers in all. The same to the byte each time; written beside the
other reference recordings, with their kind of truth.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import replace

import numpy as np

from bench.recordings import (
    JOE_SENTENCES,
    RECIPE,
    Recording,
    Truth,
    Turn,
    call,
    is_current,
    laid_out,
    levelled,
    write,
)
from bench.voices import SAMPLE_RATE, Clip, cache_folder, prompts, readings, synthesised


def meeting(minutes: float = 10.0) -> Recording:
    """The recording of about so many minutes (at most eleven), built if it is not there. Raises SpeechUnavailableError."""
    recording = Recording(cache_folder() / f"meeting-{minutes:g}min.flac")
    if is_current(recording.audio):
        return recording
    recording.audio.parent.mkdir(parents=True, exist_ok=True)
    heard, turns, activity = call()
    clips, gaps = _talk(60 * minutes - len(heard) / SAMPLE_RATE)
    talk, talk_turns = laid_out(clips, gaps)
    by = len(heard) / SAMPLE_RATE
    turns = [*turns, *(_later(turn, by) for turn in talk_turns)]
    activity = [*activity, *((turn.speaker, start, end) for turn in turns[-len(talk_turns) :] for start, end in turn.active)]
    samples = np.concatenate([heard, talk])
    rows = tuple(sorted(activity, key=lambda row: (row[1], row[2], row[0])))
    name = f"meeting-{minutes:g}min"
    write(recording.audio, samples, Truth(name, "en", len(samples) / SAMPLE_RATE, tuple(turns), rows))
    return recording


def _talk(seconds: float) -> tuple[list[Clip], list[float]]:
    """Clips of three voices for about so many seconds, each with the gap after it; nobody talks over themselves."""
    chance = random.Random(f"steno meeting {RECIPE}")
    allison = prompts("en")
    chance.shuffle(allison)
    said = [*JOE_SENTENCES, *(clip.text for clip in reversed(allison))]
    # Only what will be used is synthesised: half of the time, at about four seconds a sentence.
    joe = synthesised(tuple(said[: max(4, int(seconds / 6))]))
    queues = {"joe": joe, "allison": allison, "reader": readings()}
    chosen: list[Clip] = []
    gaps: list[float] = []
    while any(queues.values()) and sum(len(clip.samples) for clip in chosen) / SAMPLE_RATE + sum(gaps) < seconds:
        last = chosen[-1].speaker if chosen else ""
        names = [name for name, queue in queues.items() if queue and name != last] or [name for name in queues if queues[name]]
        speaker = chance.choices(names, weights=[len(queues[name]) for name in names])[0]
        if speaker == last:
            gaps[-1] = abs(gaps[-1])
        chosen.append(queues[speaker].pop(0))
        gaps.append(chance.uniform(-0.6, -0.2) if chance.random() < 0.2 else chance.uniform(0.2, 1.0))
    gaps[-1] = abs(gaps[-1])
    return [levelled(clip) for clip in chosen], gaps


def _later(turn: Turn, by: float) -> Turn:
    """The turn, so many seconds later."""
    return replace(
        turn,
        start=round(turn.start + by, 3),
        end=round(turn.end + by, 3),
        active=tuple((round(start + by, 3), round(end + by, 3)) for start, end in turn.active),
        words=turn.words and tuple((word, round(start + by, 3), round(end + by, 3)) for word, start, end in turn.words),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.meeting")
    parser.add_argument("--minutes", type=float, default=10.0)
    recording = meeting(parser.parse_args().minutes)
    truth = recording.truth()
    print(f"{recording.audio}  {truth.duration:.0f} s, {len(truth.turns)} turns, {len(truth.speakers)} speakers")


if __name__ == "__main__":
    main()
