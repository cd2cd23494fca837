"""Who speaks, on talks of one to eleven voices: `python -m bench.speakers [--half choose report] [--recording FILE…]`.

Two halves of recordings that share no voice: constants are chosen on `choose`, and `report` says what they are worth. Each talk is diarized
by the chunks' embeddings alone and with the pieces', on the same segmentation and embeddings. Every true word, at its true time, goes to
the speaker of its turn, so that no recogniser's errors are counted; docs/accuracy.md says more.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.recordings import JOE_SENTENCES, Recording, Truth, Turn, is_current, laid_out, levelled, write
from bench.systems import command_environment
from bench.tables import markdown
from bench.voices import SAMPLE_RATE, Clip, SpeechUnavailableError, cache_folder, prompts, readings, speech_regions, synthesised
from speech import audio
from speech.attribution import attributed
from speech.diarize import diarize
from speech.diarize.embedding import embed
from speech.diarize.networks import Floats, load_embedder, load_segmenter
from speech.diarize.pieces import NO_PIECES, SpeechPieces
from speech.diarize.segmentation import Segmentation, segment
from speech.models import resolve_diarization
from speech.schema import ClusterParams, Diarization, RuntimeOptions
from speech.scoring import diarization_errors
from stenoflow.types import Segment, Word

HALVES = {"choose": "a", "report": "b"}
Voices = dict[str, list[Clip]]


class Talk(NamedTuple):
    voices: slice
    """Of the half's."""
    seconds: float
    overlapping: float
    """Share of the turns that begin before the one before has ended."""
    brief: float = 0.0
    """Share of the turns that are cut to a second or less: backchannels."""


TALKS = {
    "talk3": Talk(slice(3), 120, 0.2),
    "short3": Talk(slice(3), 110, 0.15, 0.45),
    "over3": Talk(slice(3), 110, 0.7),
    "two": Talk(slice(1, 3), 60, 0.1),
    "solo": Talk(slice(1, 2), 40, 0),
    "brief": Talk(slice(2), 18, 0.1),
    "five": Talk(slice(2, 7), 180, 0.15),
    "eleven": Talk(slice(11), 130, 0.1),
    "eight": Talk(slice(-8, None), 240, 0.15),
}


def voices_of(half: str) -> Voices:
    """The half's voices: real prompts, a reader and Piper's `joe`, and the same faster and higher, or slower and lower. Raises SpeechUnavailableError."""
    lengths = {"en": 6, "fr": 7, "es": 7, "it": 7, "ru": 7}
    chance = random.Random(3)
    said: Voices = {}
    for language, seconds in lengths.items():
        said[language] = [clip for clip in prompts(language) if len(clip.samples) < seconds * SAMPLE_RATE]
        chance.shuffle(said[language])
    resampled: tuple[str, ...]
    if half == "choose":
        joe = synthesised(JOE_SENTENCES + tuple(clip.text for clip in said["en"][:40]))
        voices: Voices = {"allison": said["en"], "joe": joe, "june": said["fr"], "reader": readings()}
        resampled = ("allison 9/8", "joe 8/7", "june 8/9", "allison 7/8", "joe 7/8", "june 8/7", "joe 4/5")
    else:
        voices = {"carlo": said["it"], "ivr": said["ru"], "allison_es": said["es"]}
        resampled = ("carlo 9/8", "ivr 8/7", "allison_es 8/9", "carlo 7/8", "ivr 7/8", "allison_es 8/7", "carlo 5/4", "ivr 5/6")
    for name in resampled:
        voice, ratio = name.split()
        label = name.translate(str.maketrans(" /", "__"))
        voices[label] = [resampled(clip, label, *map(int, ratio.split("/"))) for clip in voices[voice]]
    return voices


def resampled(clip: Clip, speaker: str, longer: int, than: int) -> Clip:
    from scipy.signal import resample_poly

    return Clip(speaker, clip.text, resample_poly(clip.samples, longer, than).astype(np.float32))


def laid(talk: Talk, voices: Voices, seed: str) -> tuple[np.ndarray, list[Turn]]:
    chance = random.Random(seed)
    names = list(voices)[talk.voices]
    left = {name: [levelled(clip) for clip in voices[name]] for name in names}
    for name in names:
        chance.shuffle(left[name])
    clips: list[Clip] = []
    gaps: list[float] = []
    lasted = 0.0
    while lasted < talk.seconds and any(left.values()):
        before = clips[-1].speaker if clips else ""
        others = [name for name in names if left[name] and name != before] or [name for name in names if left[name]]
        clip = left[chance.choice(others)].pop(0)
        clips.append(_backchannel(clip) if talk.brief and chance.random() < talk.brief else clip)
        gaps.append(chance.uniform(-0.9, -0.2) if chance.random() < talk.overlapping else chance.uniform(0.15, 0.9))
        lasted += len(clips[-1].samples) / SAMPLE_RATE + gaps[-1]
    for i, (clip, after) in enumerate(zip(clips, [*clips[1:], clips[-1]], strict=True)):
        if i + 1 < len(clips) and clip.speaker == after.speaker:
            gaps[i] = abs(gaps[i])  # nobody talks over themselves
        shorter = min(len(clip.samples), len(after.samples) if i + 1 < len(clips) else 10**9)
        gaps[i] = max(-0.6 * shorter / SAMPLE_RATE, gaps[i])
    return laid_out(clips, gaps)


def _backchannel(clip: Clip) -> Clip:
    """A stretch of the clip between 0.25 and 1.2 s, with about as many of its words; the clip where it has none."""
    for start, end in speech_regions(clip.samples, longest_gap=0.05):
        if 0.25 < end - start < 1.2:
            words = clip.text.split()
            kept = words[: max(1, int(len(words) * (end - start) * SAMPLE_RATE / len(clip.samples)))]
            return Clip(clip.speaker, " ".join(kept), clip.samples[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)])
    return clip


def recordings(half: str) -> Iterator[Recording]:
    """The half's talks, built where they are not there yet. Raises SpeechUnavailableError."""
    voices: Voices = {}
    for name, talk in TALKS.items():
        recording = Recording(cache_folder() / f"{half}-{name}.flac")
        if not is_current(recording.audio):
            voices = voices or voices_of(half)
            recording.audio.parent.mkdir(parents=True, exist_ok=True)
            samples, turns = laid(talk, voices, f"{HALVES[half]}{name}")
            rows = sorted(((turn.speaker, *span) for turn in turns for span in turn.active), key=lambda row: (row[1:], row[0]))
            write(
                recording.audio,
                samples,
                Truth(recording.audio.stem, "en", len(samples) / SAMPLE_RATE, tuple(turns), tuple(rows)),
            )
        yield recording


class Heard(NamedTuple):
    segmentation: Segmentation
    vectors: Floats
    pieces: SpeechPieces

    def diarized(self, pieces: SpeechPieces, speakers: int | None) -> Diarization:
        return diarize(self.segmentation, self.vectors, ClusterParams(num_speakers=speakers), None, pieces)


def heard(recording: Recording, runtime: RuntimeOptions) -> Heard:
    model = resolve_diarization("auto", models_dir=runtime.models_path, offline=True)
    with audio.Recording(recording.audio) as file:
        segmentation = segment(file, load_segmenter(model, runtime.models_path, runtime), lambda fraction: None)
        vectors, pieces = embed(file, segmentation, load_embedder(model, runtime.models_path, runtime), lambda fraction: None)
    return Heard(segmentation, vectors, pieces)


def words_of(turn: Turn) -> Segment:
    """The turn's words, spread evenly over its sound."""
    texts = turn.text.split()
    sounding = np.concatenate([[0.0], np.cumsum([end - start for start, end in turn.active])])
    edges = np.linspace(0, sounding[-1], len(texts) + 1)

    def at(seconds: float, side: str) -> float:
        part = min(max(int(np.searchsorted(sounding, seconds, side)) - 1, 0), len(turn.active) - 1)  # type: ignore[call-overload]
        return float(turn.active[part][0] + seconds - sounding[part])

    spans = [(at(start, "right"), at(end, "left")) for start, end in pairwise(edges)]
    words = tuple(
        Word(word=text, start=start, end=end, score=1.0, timing="attention", speaker_source=None)
        for text, (start, end) in zip(texts, spans, strict=True)
    )
    return Segment(start=turn.start, end=turn.end, text=turn.text, words=words)


def wrong_words(truth: Truth, diarization: Diarization) -> tuple[int, int]:
    """Words whose speaker is not the one paired with theirs, and all words; the pairing is the one with the fewest."""
    from scipy.optimize import linear_sum_assignment

    turns = [turn for turn in truth.turns if turn.text.split()]
    labelled = attributed([words_of(turn) for turn in turns], diarization.turns, diarization.exclusive_turns)
    true, names = sorted({turn.speaker for turn in turns}), list(diarization.speakers)
    counts = np.zeros((len(true), len(names)), dtype=int)
    for turn, said in zip(turns, labelled, strict=True):
        for word in said.words:
            counts[true.index(turn.speaker), names.index(str(word.speaker))] += 1
    right = counts[linear_sum_assignment(counts, maximize=True)].sum()
    return int(counts.sum() - right), int(counts.sum())


def rows_of(recording: Recording, runtime: RuntimeOptions) -> list[list[str]]:
    """The recording's rows: when the number of speakers is to be found, and when it is given."""
    truth, parts = recording.truth(), heard(recording, runtime)
    rows = []
    for given in (None, len(truth.speakers)):
        cells = [recording.audio.stem, "given" if given else "to find"]
        for diarization in (parts.diarized(NO_PIECES, given), parts.diarized(parts.pieces, given)):
            wrong, words = wrong_words(truth, diarization)
            turns = [(turn.speaker, turn.start, turn.end) for turn in diarization.turns]
            rate = diarization_errors(truth.activity, turns, truth.duration).rate
            cells += [f"{wrong}/{words}", f"{100 * rate:.1f} %", f"{len(diarization.speakers)}/{len(truth.speakers)}"]
        rows.append(cells)
    return rows


def table(rows: Sequence[Sequence[str]]) -> str:
    columns = [f"{what}, {by}" for by in ("chunks", "pieces") for what in ("wrong words", "DER", "speakers")]
    return markdown([["recording", "number", *columns], ["---"] * 8, *map(list, rows)])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.speakers", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--half", nargs="+", choices=tuple(HALVES), default=tuple(HALVES), help="default: both")
    parser.add_argument("--recording", nargs="+", type=Path, default=(), help="own files, each with NAME.json and NAME.rttm")
    asked = parser.parse_args()
    runtime = RuntimeOptions(models_dir=str(command_environment(Path.home())["STENO_MODELS_DIR"]), offline=True)
    chosen = [Recording(path) for path in asked.recording]
    try:
        chosen = chosen or [one for half in asked.half for one in recordings(half)]
    except SpeechUnavailableError as error:
        sys.exit(str(error))
    print(table([row for one in chosen for row in rows_of(one, runtime)]))


if __name__ == "__main__":
    main()
