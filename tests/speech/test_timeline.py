"""Words are where a player shows them, whatever the container's clock does; where they cannot be, a warning says so."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from speech.audio import Recording
from speech.schema import AudioInfo
from tests.media import RATE, at_rate, encode, marked, marks, speech

Normalised = Callable[..., tuple[AudioInfo, Recording]]
Clock = Callable[[float], float]
"""From a second of the sound to the second of its time stamp."""

LENGTH = 24.0


def sound() -> np.ndarray:
    return marked(speech()[: round(LENGTH * RATE)])


def stamped(path: Path, clock: Clock, codec: str = "libopus", source: str = "plain.mka") -> Path:
    """The sound in a container, its packets' time stamps as `clock` has them."""
    plain = encode(path.with_name(source), at_rate(sound(), 48000), 48000, codec)
    with av.open(str(plain)) as inside, av.open(str(path), "w") as out:
        track = inside.streams.audio[0]
        stream = out.add_stream_from_template(track)
        last = -1
        for packet in inside.demux(track):
            if packet.pts is None:
                continue
            base = packet.time_base
            moment = max(round(clock(float(packet.pts * base)) / base), last + 1)
            packet.pts = packet.dts = last = moment
            packet.stream = stream
            out.mux(packet)
    return path


def shifts(recording: Recording, clock: Clock) -> list[float]:
    """How far each burst is from where its time stamp puts it, in seconds."""
    due = [clock(half / 2 + 0.25) for half in range(int(2 * LENGTH) - 1)]
    found = marks(recording.read(0, recording.samples), due)
    assert None not in found, [moment for moment, shift in zip(due, found, strict=True) if shift is None]
    return [shift for shift in found if shift is not None]


def assert_on_time(recording: Recording, clock: Clock, within: float = 0.05) -> None:
    found = shifts(recording, clock)
    assert max(map(abs, found)) <= within, found


@pytest.mark.parametrize("pace", [0.9, 0.95, 0.98, 0.999, 1.001, 1.02, 1.05, 1.1])
def test_sound_follows_time_stamps_of_another_pace(tmp_path: Path, normalised: Normalised, pace: float) -> None:
    info, recording = normalised(stamped(tmp_path / "a.mkv", lambda second: second * pace))
    assert_on_time(recording, lambda second: second * pace)
    assert recording.duration == pytest.approx(LENGTH * pace, abs=0.1)
    assert any("timestamps of the recording differ" in warning for warning in info.warnings) == (abs(pace - 1) * LENGTH > 0.05)


@pytest.mark.parametrize("file", ["a.mp4", "a.ts", "a.flv"])
def test_whatever_the_container(tmp_path: Path, normalised: Normalised, file: str) -> None:
    path = stamped(tmp_path / file, lambda second: second * 0.97, codec="aac", source="plain.mp4")
    _, recording = normalised(path)
    assert_on_time(recording, lambda second: second * 0.97)


def test_a_pace_that_changes_is_followed(tmp_path: Path, normalised: Normalised) -> None:
    def clock(second: float) -> float:
        return second if second < 8 else 8 + (second - 8) * 0.97

    _, recording = normalised(stamped(tmp_path / "a.mkv", clock))
    assert_on_time(recording, clock)


@pytest.mark.parametrize("jitter", [0.005, 0.015])
def test_a_clock_that_trembles_leaves_the_sound_as_it_is(tmp_path: Path, normalised: Normalised, jitter: float) -> None:
    noise = np.random.default_rng(1)
    path = stamped(tmp_path / "a.mkv", lambda second: second + jitter * float(noise.uniform(-1, 1)) * (second > 0))
    info, recording = normalised(path)
    assert_on_time(recording, lambda second: second)
    assert info.warnings == ()


@pytest.mark.parametrize("hole", [2.0, 12.0, 40.0])
@pytest.mark.parametrize("file", ["a.ts", "a.mkv", "a.mp4"])
def test_a_hole_is_silence(tmp_path: Path, normalised: Normalised, file: str, hole: float) -> None:
    def clock(second: float) -> float:
        return second + hole * (second >= 8)

    path = stamped(tmp_path / file, clock, codec="aac", source="plain.mp4")
    info, recording = normalised(path)
    assert_on_time(recording, clock)
    assert any("has gaps of" in warning for warning in info.warnings)


@pytest.mark.parametrize("step", [-0.3, -0.06, 0.06])
def test_a_small_step_is_absorbed(tmp_path: Path, normalised: Normalised, step: float) -> None:
    def clock(second: float) -> float:
        return second + step * (second >= 8)

    info, recording = normalised(stamped(tmp_path / "a.mkv", clock))
    assert max(map(abs, shifts(recording, clock)[20:])) <= 0.05
    assert any("timestamps of the recording differ" in warning for warning in info.warnings)


@pytest.mark.parametrize(("file", "step"), [("a.ts", -5.0), ("a.ts", 50_000.0)])
def test_a_clock_that_is_set_anew_is_counted_on_with_a_warning(
    tmp_path: Path, normalised: Normalised, file: str, step: float
) -> None:
    first = encode(tmp_path / "1.ts", at_rate(sound(), 48000), 48000, "aac", start=10)
    second = encode(tmp_path / "2.ts", at_rate(sound(), 48000), 48000, "aac", start=10 + LENGTH + step)
    (tmp_path / file).write_bytes(first.read_bytes() + second.read_bytes())
    info, recording = normalised(tmp_path / file)
    assert recording.duration == pytest.approx(2 * LENGTH, abs=0.3)
    assert any("are reset at 2" in warning for warning in info.warnings)


@pytest.mark.parametrize("delay", [2.0, 12.0])
def test_an_edit_list_delays_the_sound_however_long(tmp_path: Path, normalised: Normalised, delay: float) -> None:
    _, recording = normalised(encode(tmp_path / "a.m4a", at_rate(sound(), 48000), 48000, "aac", start=delay))
    assert_on_time(recording, lambda second: second + delay)


def test_a_clock_that_begins_late_is_said(tmp_path: Path, normalised: Normalised) -> None:
    info, recording = normalised(stamped(tmp_path / "a.mkv", lambda second: second + 12))
    assert recording.duration == pytest.approx(LENGTH, abs=0.1)
    assert any("timestamps of the recording start at 12.0 s" in warning for warning in info.warnings)


def test_a_fragment_of_a_broadcast_begins_at_its_first_sound_with_a_warning(tmp_path: Path, normalised: Normalised) -> None:
    path = encode(
        tmp_path / "a.mp4",
        at_rate(sound(), 48000),
        48000,
        "aac",
        options={"movflags": "frag_keyframe+empty_moov+default_base_moof"},
    )
    data = bytearray(path.read_bytes())
    at = -1
    while (at := data.find(b"tfdt", at + 1)) >= 0:
        (moment,) = struct.unpack_from(">Q", data, at + 8)
        struct.pack_into(">Q", data, at + 8, moment + 3600 * 48000)
    path.write_bytes(data)
    info, recording = normalised(path)
    assert recording.duration == pytest.approx(LENGTH, abs=0.2)
    assert any("timestamps of the recording start at" in warning for warning in info.warnings)


def test_time_bases_of_any_grain_are_followed(tmp_path: Path, normalised: Normalised) -> None:
    """AVI and FLV round to milliseconds or frames; that is no drift."""
    for file, codec in (("a.avi", "libmp3lame"), ("a.flv", "libmp3lame"), ("a.wma", "wmav2")):
        info, recording = normalised(encode(tmp_path / file, at_rate(sound(), 44100), 44100, codec, bit_rate=96000))
        assert info.warnings == ()
        assert_on_time(recording, lambda second: second)
