"""Reference recordings: the same bytes each time, and truth that is true."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bench.recordings import NAMES, Recording, build, build_all, read_rttm, tiled
from bench.voices import SpeechUnavailableError, debian_package, speech_regions
from speech.scoring.references import read_reference

RATE = 16_000
SENTENCE = "This is sentence number {word} of the prompts that are made up for the test."
WORDS = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliet"]


def tone(seconds: float, rate: int, pitch: float) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STENO_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def prompt_packages(cache: Path) -> Path:
    """The two English prompt packages as they look unpacked: texts, and 8 kHz files with silence around the voice."""
    texts = cache / "debian/asterisk-core-sounds-en/usr/share/doc/asterisk-core-sounds-en"
    sounds = cache / "debian/asterisk-core-sounds-en-wav/usr/share/asterisk/sounds/en_US_f_Allison"
    texts.mkdir(parents=True)
    sounds.mkdir(parents=True)
    lines = ["; a comment: that is not a prompt", "press-1: Please press 1 to hear a sentence that has a digit in it, or wait."]
    lines += ["missing: This sentence of the list has no sound file beside it at all.", "short: Goodbye."]
    for i, word in enumerate(WORDS):
        lines.append(f"prompt-{word}: {SENTENCE.format(word=word)}")
        quiet = np.zeros(1600, np.float32)
        soundfile.write(sounds / f"prompt-{word}.wav", np.concatenate([quiet, tone(4.5, 8000, 200 + 20 * i), quiet]), 8000)
    (texts / "core-sounds-en.txt.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    return cache


def contents(audio: Path) -> list[bytes]:
    return [audio.with_suffix(suffix).read_bytes() for suffix in (".flac", ".json", ".rttm")]


def test_sample_is_the_same_to_the_byte(tmp_path: Path) -> None:
    assert contents(build("sample", tmp_path / "one").audio) == contents(build("sample", tmp_path / "two").audio)


def test_sample_has_its_published_truth(tmp_path: Path) -> None:
    recording = build("sample", tmp_path)
    truth = recording.truth()
    assert truth.speakers == {"Diane", "Sheila"} == {turn.speaker for turn in truth.turns}
    assert len(truth.turns) == 13
    assert truth.text.startswith("Hello? Hello? Oh, hello. I didn't know you were there.")
    assert truth.activity[0] == ("Diane", 6.69, 7.12)
    assert sum(end - start for _, start, end in truth.activity) == pytest.approx(24.35)
    info = soundfile.info(recording.audio)
    assert (info.samplerate, info.channels, info.format) == (RATE, 1, "FLAC")
    assert info.duration == truth.duration == 30


def test_a_prompt_recording_is_the_same_to_the_byte(prompt_packages: Path, tmp_path: Path) -> None:
    assert contents(build("en", tmp_path / "one").audio) == contents(build("en", tmp_path / "two").audio)


def test_a_prompt_recording_says_what_is_said_and_when(prompt_packages: Path) -> None:
    recording = build("en")
    truth = recording.truth()
    assert sorted(turn.text for turn in truth.turns) == sorted(SENTENCE.format(word=word) for word in WORDS)
    samples, rate = soundfile.read(recording.audio)
    assert rate == RATE
    loud = np.abs(samples) > 0.05
    inside = np.zeros(len(samples), bool)
    for _, start, end in truth.activity:
        inside[round((start - 0.001) * rate) : round((end + 0.001) * rate)] = True
    assert not np.any(loud & ~inside)
    assert np.mean(loud[inside]) > 0.8
    for before, after in zip(truth.turns, truth.turns[1:], strict=False):
        assert 0.3 <= after.start - before.end <= 2.0


def test_a_recording_of_an_older_recipe_is_built_again(prompt_packages: Path) -> None:
    recording = build("en")
    whole = recording.audio.with_suffix(".json").read_text()
    recording.audio.with_suffix(".json").write_text('{"recipe": 0}')
    assert build("en").audio.with_suffix(".json").read_text() == whole


def test_speech_regions_skip_long_pauses_only() -> None:
    silence = np.zeros(RATE, np.float32)
    clip = np.concatenate([silence, tone(1, RATE, 300), silence[:1600], tone(1, RATE, 300), silence, tone(1, RATE, 300)])
    assert speech_regions(clip) == [pytest.approx((1.0, 3.1), abs=0.02), pytest.approx((4.1, 5.1), abs=0.02)]


def test_rttm_is_read() -> None:
    text = ";; a comment\nSPEAKER call 1 1.250 0.500 <NA> <NA> ann <NA> <NA>\n"
    assert read_rttm(text) == [("ann", 1.25, 1.75)]


def test_tiling_repeats_the_recording_to_the_asked_length(tmp_path: Path) -> None:
    recording = build("sample", tmp_path)
    long = tiled(recording.audio, 75 / 3600, tmp_path)
    samples, _ = soundfile.read(recording.audio, dtype="int16")
    repeated, rate = soundfile.read(long, dtype="int16")
    assert len(repeated) == 75 * rate
    assert np.array_equal(repeated, np.concatenate([samples, samples, samples[: 15 * rate]]))


def test_without_a_package_manager_the_rest_is_built(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said: list[str] = []
    assert [recording.audio.stem for recording in build_all(["sample", "fr"], said.append)] == ["sample"]
    assert said == [
        "fr: left out. asterisk-core-sounds-fr comes as a Debian package, and this machine has no apt-get; run on Debian or Ubuntu."
    ]


def test_a_package_that_cannot_be_downloaded_says_what_to_do(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for command in ("apt-get", "dpkg-deb"):
        (tmp_path / command).write_text("#!/bin/sh\nexit 100\n")
        (tmp_path / command).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(SpeechUnavailableError, match="could not download some-package: no network"):
        debian_package("some-package")
    assert not (cache / "debian/some-package").exists()


def test_an_unknown_recording_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="sample, en, fr, es, it, ru, conversation") as caught:
        build("klingon")
    assert all(name in str(caught.value) for name in NAMES)


def test_a_recording_is_a_reference_that_can_be_evaluated(tmp_path: Path) -> None:
    audio = build("sample", tmp_path).audio
    files = {path.name: path.read_bytes() for path in (audio.with_suffix(".json"), audio.with_suffix(".rttm"))}
    found = read_reference(files, "sample")
    truth = Recording(audio).truth()
    assert " ".join(utterance.text for utterance in found.utterances or ()) == truth.text
    assert found.activity == truth.activity
    assert (found.language, found.timed_words) == ("en", None)
