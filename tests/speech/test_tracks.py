"""Which of several audio tracks is taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest

from speech.audio import Recording
from speech.languages import LANGUAGES, language_of_tag
from speech.schema import AudioInfo
from stenoflow.errors import NoSuchTrack, UnreadableMedia
from tests.media import RATE, at_rate, seconds_of, speech

Normalised = Callable[..., tuple[AudioInfo, Recording]]


class Sound(NamedTuple):
    """One track to write: samples at 16 kHz, and what is said of it."""

    samples: np.ndarray
    language: str = ""
    title: str = ""
    default: bool = False
    comment: bool = False


def short() -> np.ndarray:
    return speech()[7 * RATE : 13 * RATE]


def silence() -> np.ndarray:
    return seconds_of("silence", 6)


def other() -> np.ndarray:
    """Another talk, to be told from the first by its samples."""
    return speech()[20 * RATE : 26 * RATE]


def written(path: Path, *sounds: Sound, codec: str = "aac", rate: int = 48000) -> Path:
    with av.open(str(path), "w") as out:
        streams = []
        for sound in sounds:
            stream = out.add_stream(codec, rate=rate, layout="mono")
            stream.metadata["language"], stream.metadata["title"] = sound.language, sound.title
            stream.disposition = av.stream.Disposition.default if sound.default else av.stream.Disposition(0)
            if sound.comment:
                stream.disposition = av.stream.Disposition.comment
            streams.append(stream)
        for stream, sound in zip(streams, sounds, strict=True):
            if not stream.codec_context.is_open:
                stream.codec_context.open()
            resampler = av.AudioResampler(
                format=stream.codec_context.format, layout="mono", rate=rate, frame_size=stream.codec_context.frame_size or 1024
            )
            frame = av.AudioFrame.from_ndarray(at_rate(sound.samples, rate)[np.newaxis], "flt", "mono")
            frame.sample_rate, frame.pts = rate, 0
            for piece in [*resampler.resample(frame), *resampler.resample(None)]:
                out.mux(stream.encode(piece))
            out.mux(stream.encode(None))
    return path


def is_of(recording: Recording, samples: np.ndarray) -> bool:
    ours = recording.read(0, 5 * RATE)
    size = 2 * len(samples)
    cross = np.fft.irfft(np.fft.rfft(ours, size) * np.conj(np.fft.rfft(samples, size)), size)
    return bool(cross.max() > 0.8 * np.linalg.norm(ours) * np.linalg.norm(samples[: 5 * RATE]))


@pytest.mark.parametrize("file", ["a.mkv", "a.mp4", "a.mov"])
def test_a_silent_track_is_passed_over(tmp_path: Path, normalised: Normalised, file: str) -> None:
    path = written(tmp_path / file, Sound(silence(), default=True), Sound(short()))
    info, recording = normalised(path)
    assert is_of(recording, short())
    assert info.track is not None
    assert (info.track.number, info.track.of) == (2, 2)
    assert ["2 audio tracks; track 2 was transcribed: track 1 is silent" in warning for warning in info.warnings] == [True]


def test_a_hum_is_passed_over_for_a_voice(tmp_path: Path, normalised: Normalised) -> None:
    hum = (0.0015 * np.sin(2 * np.pi * 50 * np.arange(6 * RATE) / RATE)).astype(np.float32)
    _, recording = normalised(written(tmp_path / "a.mkv", Sound(hum), Sound(short())))
    assert is_of(recording, short())


def test_all_silent_is_the_first_choice(tmp_path: Path, normalised: Normalised) -> None:
    info, _ = normalised(written(tmp_path / "a.mkv", Sound(silence()), Sound(silence(), default=True)))
    assert info.track is not None
    assert info.track.number == 2


@pytest.mark.parametrize("place", [0, 1])
def test_a_codec_that_is_not_known_is_passed_over(tmp_path: Path, normalised: Normalised, place: int) -> None:
    path = written(tmp_path / "a.mov", Sound(short(), default=True), Sound(short()), codec="pcm_s16le")
    data = bytearray(path.read_bytes())
    at = -1
    for _ in range(place + 1):
        at = data.index(b"stsd", at + 1)
    at = data.index(b"sowt", at)
    data[at : at + 4] = b"xxxx"
    path.write_bytes(data)
    info, recording = normalised(path)
    assert is_of(recording, short())
    assert info.track is not None
    assert info.track.number == 2 - place
    assert "codec that is not known" in info.warnings[0]
    with pytest.raises(UnreadableMedia):
        normalised(path, track=str(place + 1))


def test_the_language_that_is_asked_for_comes_first(tmp_path: Path, normalised: Normalised) -> None:
    path = written(tmp_path / "a.mkv", Sound(short(), "eng", default=True), Sound(other(), "fre", "Doublage"))
    for language, number in (("fr", 2), ("en", 1), ("de", 1), (None, 1), ("de,fr", 2), ("en,fr", 1)):
        info, recording = normalised(path, language=language)
        assert info.track is not None
        assert info.track.number == number, language
        assert is_of(recording, other() if number == 2 else short())
        assert f"track {number}" in info.warnings[0]


@pytest.mark.parametrize(("asked", "number"), [("2", 2), ("1", 1), ("fr", 2), ("French", 2), ("fra", 2), ("eng", 1)])
def test_a_track_is_taken_by_its_number_or_language(tmp_path: Path, normalised: Normalised, asked: str, number: int) -> None:
    path = written(tmp_path / "a.mkv", Sound(silence(), "eng", default=True), Sound(short(), "fre"))
    info, recording = normalised(path, track=asked)
    assert info.track is not None
    assert (info.track.number, info.track.language) == (number, "en" if number == 1 else "fr")
    assert recording.read(0, 4 * RATE).any() == (number == 2)


@pytest.mark.parametrize("asked", ["3", "de"])
def test_a_track_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path, normalised: Normalised, asked: str) -> None:
    path = written(tmp_path / "a.mkv", Sound(short(), "eng", "Host"), Sound(short(), "fre"))
    with pytest.raises(NoSuchTrack, match=r'track 1 \(English, "Host"\); track 2 \(French\)'):
        normalised(path, track=asked)


@pytest.mark.parametrize("file", ["a.mkv", "a.mp4"])
def test_a_title_that_is_not_unicode_loses_what_cannot_be_read(tmp_path: Path, normalised: Normalised, file: str) -> None:
    path = written(tmp_path / file, Sound(short(), "eng", "Stu-XX"), Sound(short(), "fre"))
    path.write_bytes(path.read_bytes().replace(b"Stu-XX", b"Stu-\xff\xe9"))
    info, _ = normalised(path)
    assert info.model_dump_json()
    with pytest.raises(NoSuchTrack, match="track 1") as error:
        normalised(path, track="3")
    assert str(error.value).encode()


def test_commentary_comes_last(tmp_path: Path, normalised: Normalised) -> None:
    path = written(tmp_path / "a.mkv", Sound(other(), comment=True), Sound(short()))
    assert is_of(normalised(path)[1], short())


def test_one_track_raises_no_warning_and_takes_its_own_number(tmp_path: Path, normalised: Normalised) -> None:
    path = written(tmp_path / "a.mkv", Sound(short(), "eng"))
    for asked in ({}, {"track": "1"}, {"track": "en"}, {"language": "fr"}):
        info, _ = normalised(path, **asked)
        assert (info.track, info.warnings) == (None, ())


def test_tags_of_every_language_are_known() -> None:
    assert all(language_of_tag(code) == code for code in LANGUAGES)
    for tag, code in (
        ("fre", "fr"),
        ("fra", "fr"),
        ("ger", "de"),
        ("pt-BR", "pt"),
        ("zh_TW", "zh"),
        ("French", "fr"),
        ("gla", "gla"),
    ):
        assert language_of_tag(tag) == code
    assert all(language_of_tag(tag) is None for tag in ("", "und", "mul", "zxx"))
