"""Channels: whether each carries a voice of its own, and each as a recording of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from speech.audio import Recording
from speech.schema import AudioInfo
from tests.media import RATE, at_rate, encode, seconds_of, speech, wav

Normalised = Callable[..., tuple[AudioInfo, Recording]]

ONE = speech()[: 14 * RATE]
OTHER = np.roll(speech()[16 * RATE :], 0)[: 14 * RATE]
TURN = (np.arange(14 * RATE) // (2 * RATE)) % 2 == 0


def call(bleed: float = 0.0) -> np.ndarray:
    """A party on each channel, in turns; each heard in the other's, that much quieter."""
    left, right = ONE * TURN, OTHER * ~TURN
    return np.stack([left + bleed * right, right + bleed * left]).astype(np.float32)


def music() -> np.ndarray:
    """Wide stereo, with a voice in the middle."""
    band = seconds_of("music", 14)
    return np.stack([band + ONE, 0.8 * np.roll(band, 300) + ONE]) * 0.5


CARRIED: dict[str, tuple[Callable[[], np.ndarray], str]] = {
    "a call": (call, "voices"),
    "a call with bleed at -20 dB": (lambda: call(0.1), "voices"),
    "two talks": (lambda: np.stack([ONE, OTHER]), "voices"),
    "the same twice": (lambda: np.stack([ONE, ONE]), "one"),
    "the same twice, one quieter": (lambda: np.stack([ONE, 0.3 * ONE]), "one"),
    "the same twice, one inverted": (lambda: np.stack([ONE, -ONE]), "one"),
    "one channel alone": (lambda: np.stack([ONE, 0 * ONE]), "one"),
    "music": (music, "mix"),
    "two microphones in a room": (lambda: np.stack([ONE + 0.5 * np.roll(OTHER, 30), 0.6 * np.roll(ONE, 50) + OTHER]), "mix"),
    "two seconds of another voice": (lambda: np.stack([ONE, OTHER * (np.arange(14 * RATE) < 1.5 * RATE)]), "mix"),
    "silence": (lambda: np.zeros((2, 14 * RATE)), "one"),
}


@pytest.mark.parametrize("case", CARRIED)
def test_only_channels_with_a_voice_each_are_separated_unasked(tmp_path: Path, normalised: Normalised, case: str) -> None:
    make, what = CARRIED[case]
    info, _ = normalised(wav(tmp_path / "in.wav", make().astype(np.float32)), channels="auto")
    assert info.carried is not None and info.carried.what == what
    assert len(info.channels) == (2 if what == "voices" else 0)


@pytest.mark.parametrize(("file", "codec", "rate"), [("a.mp3", "libmp3lame", 44100), ("b.m4a", "aac", 48000)])
def test_lossy_joint_stereo_of_one_sound_is_one_sound(
    tmp_path: Path, normalised: Normalised, file: str, codec: str, rate: int
) -> None:
    path = encode(tmp_path / file, at_rate(np.stack([ONE, 0.9 * ONE]), rate), rate, codec)
    info, _ = normalised(path, channels="separate")
    assert info.carried is not None and (info.carried.what, info.channels) == ("one", ())


def test_a_channel_is_the_recording_that_it_would_be_by_itself(tmp_path: Path, normalised: Normalised) -> None:
    info, mix = normalised(wav(tmp_path / "call.wav", call()), channels="separate")
    alone = [normalised(wav(tmp_path / f"{number}.wav", channel))[0] for number, channel in enumerate(call(), 1)]
    assert [channel.sha256 for channel in info.channels] == [each.sha256 for each in alone]
    assert [channel.number for channel in info.channels] == [1, 2]
    assert {channel.duration for channel in info.channels} == {mix.duration}


def test_the_mix_of_channels_is_the_same_whether_they_are_separated(tmp_path: Path, normalised: Normalised) -> None:
    path = wav(tmp_path / "call.wav", call())
    assert len({normalised(path, channels=way)[0].sha256 for way in ("mix", "separate", "auto")}) == 1


def test_of_several_channels_those_without_sound_and_repeated_ones_are_left_out(tmp_path: Path, normalised: Normalised) -> None:
    sound = np.stack([*call(), 0 * ONE, call()[0]])
    path = encode(tmp_path / "in.wav", sound, RATE, "pcm_s16le", layout="4.0")
    assert [channel.number for channel in normalised(path, channels="separate")[0].channels] == [1, 2]
    assert normalised(path, channels="auto")[0].channels == ()


def test_one_channel_is_not_compared_with_anything(tmp_path: Path, normalised: Normalised) -> None:
    info, _ = normalised(wav(tmp_path / "in.wav", ONE), channels="separate")
    assert (info.carried, info.channels) == (None, ())
