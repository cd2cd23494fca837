"""Recordings in several languages: `python -m bench.switching [NAME…] [--model base] [--alone]`.

Each is made of prompts in several languages, with pauses of 0.3 to 1.5 s. Printed for each: how many of its sentences are in their own
language; the word error rate when the languages are detected, when they are listed, when the recording is taken to be in one, and of the
same sentences alone, each language in a recording of its own; and CPU seconds of ASR. The constants of `speech/asr/tongues.py` were chosen
on CHOSEN_ON; REPORTED was not looked at before.

`--alone` prints instead, for the recordings in one language of `bench.recordings`, the languages that are found in each, and CPU seconds
with the language detected and given.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.recordings import NAMES, Truth, Turn, build_all, laid_out, levelled, write
from bench.tables import markdown
from bench.voices import SAMPLE_RATE, Clip, SpeechUnavailableError, prompts
from speech.scoring import word_errors

SECONDS = 50.0
"""Of speech in each."""
CHOSEN_ON = {
    "a": (("en", "fr", "es"), (1, 1)),
    "b": (("it", "ru", "en"), (1, 2)),
    "c": (("en", "fr", "es", "it", "ru"), (1, 3)),
    "d": (("en", "es"), (2, 4)),
}
"""Languages, and how many sentences of one follow each other."""
REPORTED = {
    "i": (("fr", "it"), (1, 3)),
    "j": (("es", "it"), (1, 2)),
    "k": (("en", "fr", "es", "it", "ru"), (1, 1)),
    "l": (("en", "ru"), (3, 5)),
}


@dataclass(frozen=True)
class Heard:
    """What ASR made of a recording."""

    words: list[tuple[str, float, str]]
    """Text, seconds of its middle, and language."""
    languages: tuple[str, ...]
    cpu_seconds: float


def sentences(name: str) -> list[tuple[Clip, str, float]]:
    """The recording's sentences in order, each with its language and the pause after it in seconds. Raises SpeechUnavailableError."""
    languages, runs = (CHOSEN_ON | REPORTED)[name]
    chance = random.Random(f"switching {name}")
    left = {language: prompts(language) for language in languages}
    for language in languages:
        chance.shuffle(left[language])
    chosen: list[tuple[Clip, str]] = []
    while sum(len(clip.samples) for clip, _ in chosen) < SECONDS * SAMPLE_RATE:
        last = chosen[-1][1] if chosen else None
        language = chance.choice([other for other in languages if other != last])
        chosen += [(levelled(left[language].pop()), language) for _ in range(chance.randint(*runs))]
    return [(clip, language, chance.uniform(0.3, 1.5)) for clip, language in chosen]


def built(folder: Path, name: str, spoken: Sequence[tuple[Clip, str, float]]) -> tuple[Path, list[Turn]]:
    """The sentences in a file, and when each is said."""
    samples, turns = laid_out([clip for clip, _, _ in spoken], [gap for _, _, gap in spoken])
    audio = folder / f"{name}.flac"
    write(audio, samples, Truth(name, spoken[0][1], len(samples) / SAMPLE_RATE, tuple(turns), ()))
    return audio, turns


def transcribed(audio: Path, model: str, language: str | None) -> Heard:
    """The words of a recording, by the stages themselves."""
    from infra.compute import runtime_of
    from infra.settings import get_settings
    from speech.schema import AsrParams, AsrResult, SegmentParams
    from speech.stages import run_stage
    from speech.stored import read_json

    runtime = runtime_of(get_settings()).model_copy(update={"device": "cpu"})
    segmentation, text = audio.with_suffix(".npz"), audio.with_suffix(".asr.json")
    if not segmentation.exists():
        run_stage("segment", {"audio": audio}, SegmentParams().model_dump(), runtime, segmentation, lambda _: None)
    began = time.process_time()
    inputs = {"audio": audio, "segmentation": segmentation}
    facts = run_stage("asr", inputs, AsrParams(model=model, language=language).model_dump(), runtime, text, lambda _: None)
    spent = time.process_time() - began
    found = read_json(AsrResult, text)
    words = [(w.word, (w.start + w.end) / 2, found.spoken(part)) for part in found.segments for w in part.words]
    return Heard(words, found.languages or (facts["language"],), spent)


def errors(turns: Sequence[tuple[Turn, str]], heard: Heard) -> tuple[int, int, int]:
    """Word errors, words, and how many sentences are mostly in their own language."""
    wrong = total = right = 0
    said: dict[int, list[tuple[str, str]]] = {index: [] for index in range(len(turns))}
    for word, middle, language in heard.words:
        nearest = min(said, key=lambda i: max(turns[i][0].start - middle, middle - turns[i][0].end, 0.0))
        said[nearest].append((word, language))
    for language in {language for _, language in turns}:
        mine = [index for index, (_, spoken) in enumerate(turns) if spoken == language]
        reference = " ".join(turns[index][0].text for index in mine)
        hypothesis = " ".join(word for index in mine for word, _ in said[index])
        found = word_errors(reference, hypothesis, language)
        wrong, total = wrong + found.errors, total + found.reference_words
    for index, (_, language) in enumerate(turns):
        right += 2 * sum(spoken == language for _, spoken in said[index]) > len(said[index])
    return wrong, total, right


def measure(name: str, model: str, folder: Path) -> list[str]:
    """A line of the table."""
    spoken = sentences(name)
    audio, placed = built(folder, name, spoken)
    turns = list(zip(placed, (language for _, language, _ in spoken), strict=True))
    languages = list(dict.fromkeys(language for _, language in turns))
    detected = transcribed(audio, model, None)
    usual = max(languages, key=lambda code: sum(turn.end - turn.start for turn, language in turns if language == code))
    listed, single = transcribed(audio, model, ",".join(sorted(languages))), transcribed(audio, model, usual)
    alone = [0, 0]
    for language in languages:
        own = [sentence for sentence in spoken if sentence[1] == language]
        file, apart = built(folder, f"{name}-{language}", own)
        wrong, total, _ = errors([(turn, language) for turn in apart], transcribed(file, model, language))
        alone = [alone[0] + wrong, alone[1] + total]
    wrong, total, right = errors(turns, detected)
    rates = [wrong / total, *(errors(turns, heard)[0] / total for heard in (listed, single)), alone[0] / alone[1]]
    cells = [name, " ".join(languages), f"{right}/{len(turns)}", " ".join(detected.languages)]
    cells += [f"{100 * rate:.1f} %" for rate in rates]
    return [*cells, f"{detected.cpu_seconds:.0f}", f"{single.cpu_seconds:.0f}"]


def alone(model: str, folder: Path, files: Sequence[Path]) -> Iterable[list[str]]:
    """A line for each recording in one language."""
    references = [(r.audio, r.truth().language) for r in build_all(NAMES, lambda line: print(line, file=sys.stderr))]
    for file, language in [*references, *((file, None) for file in files)]:
        audio = folder / f"{file.stem}{file.suffix}"
        audio.symlink_to(file.resolve())
        detected = transcribed(audio, model, None)
        given = transcribed(audio, model, language or detected.languages[0])
        same = [word for word, _, _ in detected.words] == [word for word, _, _ in given.words]
        cells = [file.stem, language or "–", " ".join(detected.languages), "same" if same else "another"]
        yield [*cells, f"{detected.cpu_seconds:.0f}", f"{given.cpu_seconds:.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.switching", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", default=list(CHOSEN_ON | REPORTED), help="recordings (default: all)")
    parser.add_argument("--model", default="base", help="Whisper weights (default: %(default)s)")
    parser.add_argument("--alone", action="store_true", help="recordings in one language instead")
    parser.add_argument("--recording", nargs="+", type=Path, default=(), help="own recordings in one language, with --alone")
    asked = parser.parse_args()
    head = ["recording", "languages", "sentences in theirs", "found", "WER", "listed", "in one language", "sentences alone"]
    if asked.alone:
        head = ["recording", "language", "found", "text"]
    lines = [[*head, "CPU s", "language given"], ["---"] * (len(head) + 2)]
    try:
        with tempfile.TemporaryDirectory() as folder:
            rows = (
                alone(asked.model, Path(folder), asked.recording)
                if asked.alone
                else (measure(name, asked.model, Path(folder)) for name in asked.names)
            )
            for row in rows:
                print("  ".join(row), file=sys.stderr, flush=True)
                lines.append(row)
    except SpeechUnavailableError as error:
        sys.exit(str(error))
    print(markdown(lines))


if __name__ == "__main__":
    main()
