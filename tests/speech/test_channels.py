"""No channel that carries a voice is lost in the mix: not cancelled by another, not left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import hilbert

from speech.audio import Recording
from speech.mixdown import PLAIN, Block, Mixer, Mixing
from speech.schema import AudioInfo
from tests.media import RATE, at_rate, encode, seconds_of, speech, wav

Normalised = Callable[..., tuple[AudioInfo, Recording]]


def voice(start: float = 7, seconds: float = 12) -> np.ndarray:
    return speech()[round(start * RATE) : round((start + seconds) * RATE)]


def other() -> np.ndarray:
    return voice(18)


def share_of(recording: Recording, samples: np.ndarray, low: int = 300, high: int = 3400) -> float:
    """How much of the voice band of `samples` is in the recording: the coherent part's amplitude, in whatever polarity."""
    ours = recording.read(0, len(samples))
    energy, kept = 0.0, 0.0
    for start in range(0, len(samples) - 1600, 800):
        theirs, mine = (
            np.fft.rfft(part[start : start + 1600] * np.hanning(1600))[low // 10 : high // 10] for part in (samples, ours)
        )
        power = float((np.abs(theirs) ** 2).sum())
        energy += power
        kept += abs(float((theirs.conj() * mine).real.sum()))
    return kept / energy


def band(samples: np.ndarray, low: float, high: float) -> np.ndarray:
    spectrum = np.fft.rfft(samples)
    frequencies = np.fft.rfftfreq(len(samples), 1 / RATE)
    spectrum[(frequencies < low) | (frequencies >= high)] = 0
    return np.fft.irfft(spectrum, len(samples)).astype(np.float32)


def alternating() -> np.ndarray:
    """1 and -1 in turn, for three seconds each."""
    return np.where(np.arange(12 * RATE) // (3 * RATE) % 2, -1, 1).astype(np.float32)


HUM = (0.1 * np.sin(2 * np.pi * 50 * np.arange(12 * RATE) / RATE)).astype(np.float32)
STEREO = {
    "inverted": lambda: (voice(), -voice()),
    "inverted and quieter": lambda: (voice(), -0.6 * voice()),
    "inverted at times": lambda: (voice(), alternating() * voice()),
    "inverted at the end": lambda: (voice(), np.where(np.arange(12 * RATE) < 9 * RATE, 1, -1) * voice()),
    "inverted by 160 degrees": lambda: (voice(), np.real(hilbert(voice()) * np.exp(1j * np.radians(160)))),
    "inverted over a hum": lambda: (voice() + HUM, HUM - voice()),
    "inverted above 800 Hz": lambda: (voice(), band(voice(), 0, 800) - band(voice(), 800, 8000)),
}


@pytest.mark.parametrize("case", STEREO)
def test_a_voice_that_two_channels_carry_against_each_other_is_kept(tmp_path: Path, normalised: Normalised, case: str) -> None:
    _, recording = normalised(wav(tmp_path / "in.wav", np.stack(STEREO[case]()).astype(np.float32)))
    assert recording.samples == 12 * RATE
    assert share_of(recording, voice()) > 0.7


def test_two_voices_one_of_them_inverted_are_both_kept(tmp_path: Path, normalised: Normalised) -> None:
    sound = np.stack([voice() + other(), voice() - other()])
    _, recording = normalised(wav(tmp_path / "in.wav", sound))
    ours = recording.read(0, 12 * RATE)
    for mine, theirs in ((voice(), other()), (other(), voice())):
        alone = share_of(recording, np.where(np.abs(mine) > 3 * np.abs(theirs), mine, 0))
        assert alone > 0.4
    assert np.abs(ours).max() <= 1.0


def test_inverted_sound_is_kept_at_every_rate_and_through_codecs(tmp_path: Path, normalised: Normalised) -> None:
    for file, codec, rate in (("a.mp3", "libmp3lame", 44100), ("b.m4a", "aac", 48000), ("c.flac", "flac", 8000)):
        path = encode(tmp_path / file, at_rate(np.stack([voice(), -voice()]), rate), rate, codec)
        _, recording = normalised(path)
        ours = recording.read(0, 12 * RATE)
        assert np.sqrt((ours**2).mean()) > 0.5 * np.sqrt((voice() ** 2).mean()), file


def six(place: int, music: float = 0.0) -> np.ndarray:
    """Six channels, a voice on one of them; the others silent, or with music."""
    channels = np.stack([music * seconds_of("music", 12)] * 6)
    channels[place] = voice()
    return channels


@pytest.mark.parametrize("place", range(6))
def test_the_voice_of_any_track_of_a_recorder_is_kept(tmp_path: Path, normalised: Normalised, place: int) -> None:
    path = encode(tmp_path / "in.wav", six(place), RATE, "pcm_s16le")
    _, recording = normalised(path)
    assert share_of(recording, voice()) > 0.1


@pytest.mark.parametrize(("layout", "place"), [("5.1", 3), ("7.1", 3), ("3.1", 3), ("2.1", 2)])
def test_a_voice_on_the_channel_for_low_effects_is_kept(
    tmp_path: Path, normalised: Normalised, layout: str, place: int
) -> None:
    count = {"5.1": 6, "7.1": 8, "3.1": 4, "2.1": 3}[layout]
    channels = np.stack([0.05 * seconds_of("music", 12)] * count)
    channels[place] = voice()
    _, recording = normalised(encode(tmp_path / "in.flac", channels, RATE, "flac", layout=layout))
    assert share_of(recording, voice()) > 0.1


def test_front_channels_of_surround_that_cancel_are_turned(tmp_path: Path, normalised: Normalised) -> None:
    channels = np.zeros((6, 12 * RATE), np.float32)
    channels[0], channels[1] = voice(), -voice()
    _, recording = normalised(encode(tmp_path / "in.flac", channels, RATE, "flac"))
    assert share_of(recording, voice()) > 0.3


def mixed(channels: np.ndarray, names: tuple[str, ...]) -> Mixing:
    """How a recording is mixed best, told after a plain mix."""
    mixer = Mixer()
    for start in range(0, channels.shape[1], RATE):
        part = channels[:, start : start + RATE]
        mixer.mix(Block(part, RATE, names, part.shape[1]))
    return mixer.better


ORDINARY = {
    "the same twice": lambda: (voice(), voice()),
    "one silent": lambda: (voice(), 0 * voice()),
    "two talks": lambda: (voice(), other()),
    "two microphones": lambda: (voice(), 0.7 * np.roll(voice(), 40)),
    "a delay of half a millisecond": lambda: (voice(), np.roll(voice(), 8)),
    "90 degrees": lambda: (voice(), np.imag(hilbert(voice())).astype(np.float32)),
    "music around a voice": lambda: (voice() + seconds_of("music", 12), voice() + 0.8 * np.roll(seconds_of("music", 12), 90)),
    "silence": lambda: (0 * voice(), 0 * voice()),
    "noise": lambda: tuple(0.1 * np.random.default_rng(1).standard_normal((2, 12 * RATE))),
}


@pytest.mark.parametrize("case", ORDINARY)
def test_ordinary_stereo_is_the_plain_mean_as_ever(case: str) -> None:
    assert mixed(np.stack(ORDINARY[case]()).astype(np.float32), ("FL", "FR")) == PLAIN


def test_low_effects_alone_are_left_out_as_ever() -> None:
    rumble = band(np.random.default_rng(2).standard_normal(12 * RATE).astype(np.float32), 20, 120)
    channels = np.stack([0.1 * seconds_of("music", 12)] * 2 + [voice(), 0.9 * rumble / np.abs(rumble).max()])
    assert mixed(channels.astype(np.float32), ("FL", "FR", "FC", "LFE")) == PLAIN
