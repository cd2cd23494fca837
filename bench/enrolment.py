"""Who is named by an enrolled voice: `python -m bench.enrolment [--half choose report]`.

The halves and talks of `bench.speakers`. Each voice is enrolled from clips that no talk holds; then every speaker whom diarization finds in a
talk is compared with every voice of the half, and with all but its own, as a stranger. The threshold is chosen on `choose`; `report`, and the
real call, say what it is worth. Telephone talks went through 300 to 3400 Hz at 8 kHz; voices are always enrolled as recorded.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.recordings import Recording, Truth, Turn, call, is_current, laid_out, levelled, write
from bench.speakers import HALVES, TALKS, Voices, heard, laid, voices_of
from bench.systems import command_environment
from bench.tables import markdown
from bench.voices import SAMPLE_RATE, Clip, Samples, SpeechUnavailableError, cache_folder
from speech.enrolled import THRESHOLD, Consent, EnrolledVoice, Voiceprint, matched, similarity
from speech.schema import Diarization, RuntimeOptions

SECONDS = {"20 s": 20.0, "6 s": 6.0}
"""Of speech that a voice is enrolled from; OpenAI's callers give 2 to 10 s."""
_TALKS = ("two", "talk3", "five", "eleven", "eight")
_CONSENT = Consent(note="benchmark", by="benchmark", at=datetime(2026, 1, 1, tzinfo=UTC))
_MODEL = "benchmark@1"


class Found(NamedTuple):
    """A speaker whom diarization found, and who it is."""

    talk: str
    label: str
    voice: str
    embedding: tuple[float, ...]


class Counts(NamedTuple):
    right: int
    wrong: int
    unnamed: int
    strangers_named: int
    strangers: int


# -- what is compared -------------------------------------------------------------------------------------------------


def enrolled_from(voices: Voices, seconds: float) -> tuple[dict[str, list[Clip]], Voices]:
    """Clips of each voice that last about as long, and those that are left for talks."""
    taken: dict[str, list[Clip]] = {}
    left: Voices = {}
    for name, clips in voices.items():
        # The same for all lengths, and for a voice and the same at another pitch: no talk says what was enrolled.
        order = sorted(clips, key=lambda clip: random.Random(clip.text).random())
        lasting = np.cumsum([len(clip.samples) / SAMPLE_RATE for clip in order])
        most = int(np.searchsorted(lasting, max(SECONDS.values()))) + 1
        taken[name] = order[: min(most, int(np.searchsorted(lasting, seconds)) + 1)]
        left[name] = [clip for clip in clips if clip not in order[:most]]
    return taken, left


def telephone(samples: Samples) -> Samples:
    """As a telephone line carries it."""
    from scipy.signal import butter, resample_poly, sosfiltfilt

    narrow = sosfiltfilt(butter(4, (300, 3400), "bandpass", fs=SAMPLE_RATE, output="sos"), samples)
    out: Samples = resample_poly(resample_poly(narrow, 1, 2), 2, 1)[: len(samples)].astype(np.float32)
    return out


def diarized(recording: Recording, runtime: RuntimeOptions, speakers: int | None = None) -> Diarization:
    parts = heard(recording, runtime)
    return parts.diarized(parts.pieces, speakers)


def who(diarization: Diarization, truth: Truth, talk: str) -> Iterator[Found]:
    """Each speaker as the voice that most of their exclusive turns are of."""
    for label in diarization.speakers:
        spoken = dict.fromkeys(sorted(truth.speakers), 0.0)
        for turn in diarization.exclusive_turns:
            if turn.speaker == label:
                for voice, start, end in truth.activity:
                    spoken[voice] += max(0.0, min(end, turn.end) - max(start, turn.start))
        yield Found(talk, label, max(spoken, key=lambda name: spoken[name]), diarization.speaker_embeddings[label])


def built(name: str, samples: Samples, turns: Sequence[Turn]) -> Recording:
    recording = Recording(cache_folder() / f"{name}.flac")
    if not is_current(recording.audio):
        rows = sorted(((turn.speaker, *span) for turn in turns for span in turn.active), key=lambda row: (row[1:], row[0]))
        recording.audio.parent.mkdir(parents=True, exist_ok=True)
        write(recording.audio, samples, Truth(name, "en", len(samples) / SAMPLE_RATE, tuple(turns), tuple(rows)))
    return recording


def enrol(name: str, clips: Iterable[Clip], tag: str, runtime: RuntimeOptions) -> EnrolledVoice:
    chosen = [levelled(clip) for clip in clips]
    samples, turns = laid_out(chosen, [0.4] * len(chosen))
    found = diarized(built(f"enrol-{tag}-{name}", samples, turns), runtime, 1)
    (embedding,) = found.speaker_embeddings.values()
    return voice(name, embedding)


def voice(name: str, embedding: tuple[float, ...]) -> EnrolledVoice:
    return EnrolledVoice(
        id=name, name=name, prints=(Voiceprint(model=_MODEL, embedding=embedding, seconds=1.0),), consents=(_CONSENT,)
    )


def speakers_of(half: str, voices: Voices, runtime: RuntimeOptions) -> dict[str, list[Found]]:
    """Who is found in the half's talks, as recorded and by telephone."""
    found: dict[str, list[Found]] = {"as recorded": [], "telephone": []}
    for name in _TALKS:
        samples, turns = laid(TALKS[name], voices, f"{HALVES[half]}{name}")
        for line, sounding in (("as recorded", samples), ("telephone", telephone(samples))):
            recording = built(f"known-{half}-{name}-{line.replace(' ', '_')}", sounding, turns)
            found[line] += who(diarized(recording, runtime), recording.truth(), name)
    return found


def caller_half(runtime: RuntimeOptions) -> tuple[list[EnrolledVoice], list[Found]]:
    """Of the real call: its two voices enrolled from four seconds each of its first part, and found in its second."""
    samples, _, activity = call()
    spans = {"Diane": (10.6, 14.4), "Sheila": (14.8, 17.9)}
    voices = [
        enrol(name, [Clip(name, "", samples[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)])], "call", runtime)
        for name, (start, end) in spans.items()
    ]
    first = 18.0
    rest = samples[int(first * SAMPLE_RATE) :]
    turns = [
        Turn(name, start - first, end - first, "", ((start - first, end - first),))
        for name, start, end in activity
        if start >= first
    ]
    recording = built("known-call", rest, turns)
    return voices, list(who(diarized(recording, runtime), recording.truth(), "call"))


# -- what it comes to -------------------------------------------------------------------------------------------------


def scores(found: Sequence[Found], voices: Sequence[EnrolledVoice]) -> tuple[list[float], list[float]]:
    """Similarities of pairs of one voice, and of pairs of two."""
    same: list[float] = []
    other: list[float] = []
    for one in found:
        for known in voices:
            (same if known.name == one.voice else other).append(similarity(one.embedding, known.prints[0].embedding))
    return same, other


def equal_error(same: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """The rate at which as many pairs of one voice are missed as pairs of two are accepted, and the threshold of that."""
    edges = sorted({*same, *other})
    rates = [(np.mean(np.asarray(same) < edge), np.mean(np.asarray(other) >= edge), edge) for edge in edges]
    missed, accepted, edge = min(rates, key=lambda rate: abs(rate[0] - rate[1]))
    return float((missed + accepted) / 2), float(edge)


def counted(found: Sequence[Found], voices: Sequence[EnrolledVoice], threshold: float) -> Counts:
    """Whom the names are given to, talk by talk; and strangers: each speaker without the voice that is theirs, on their own."""
    right = wrong = unnamed = named = 0
    for talk in dict.fromkeys(one.talk for one in found):
        own = [one for one in found if one.talk == talk]
        matches = matched(_as_diarized(own), voices, threshold).speakers
        for one in own:
            name = matches[one.label].name if one.label in matches else None
            right, wrong, unnamed = (
                right + (name == one.voice),
                wrong + (name not in (None, one.voice)),
                unnamed + (name is None),
            )
            others = [known for known in voices if known.name != one.voice]
            named += bool(matched(_as_diarized([one]), others, threshold).speakers)
    return Counts(right, wrong, unnamed, named, len(found))


def _as_diarized(found: Sequence[Found]) -> Diarization:
    from stenoflow.types import ModelInfo

    name, _, revision = _MODEL.partition("@")
    return Diarization(
        turns=(),
        exclusive_turns=(),
        speakers=tuple(one.label for one in found),
        speaker_embeddings={one.label: one.embedding for one in found},
        models={"diarization": ModelInfo(name=name, revision=revision, origin="package")},
    )


def row(what: Sequence[str], found: Sequence[Found], voices: Sequence[EnrolledVoice]) -> list[str]:
    rate, edge = equal_error(*scores(found, voices))
    at = counted(found, voices, THRESHOLD)
    return [
        *what,
        str(len(found)),
        f"{100 * rate:.1f} % ({edge:.2f})",
        f"{at.right} / {at.wrong} / {at.unnamed}",
        f"{at.strangers - at.strangers_named}/{at.strangers}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.enrolment", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--half", nargs="+", choices=tuple(HALVES), default=tuple(HALVES), help="default: both")
    asked = parser.parse_args()
    runtime = RuntimeOptions(models_dir=str(command_environment(Path.home())["STENO_MODELS_DIR"]), offline=True)
    columns = [
        "half",
        "voices",
        "enrolled",
        "talks",
        "speakers",
        "equal error (at)",
        "right / wrong / unnamed",
        "strangers unnamed",
    ]
    rows = [columns, ["---"] * len(columns)]
    try:
        for half in asked.half:
            rows += rows_of(half, runtime)
        voices, found = caller_half(runtime)
        rows.append(row(["the real call", "2", "3 s", "telephone"], found, voices))
    except SpeechUnavailableError as error:
        sys.exit(str(error))
    print(markdown(rows))


def rows_of(half: str, runtime: RuntimeOptions) -> Iterator[list[str]]:
    """For all of the half's voices, and for its people alone: the others are these at another pitch."""
    every = voices_of(half)
    _, left = enrolled_from(every, max(SECONDS.values()))
    found = speakers_of(half, left, runtime)
    for lasting, seconds in SECONDS.items():
        clips, _ = enrolled_from(every, seconds)
        voices = [enrol(name, own, f"{half}-{seconds:g}", runtime) for name, own in clips.items()]
        people = [known for known in voices if not known.name[-1].isdigit()]
        names = {known.name for known in people}
        for line, those in found.items():
            yield row([half, f"all {len(voices)}", lasting, line], those, voices)
            yield row([half, f"{len(people)} people", lasting, line], [one for one in those if one.voice in names], people)


if __name__ == "__main__":
    main()
