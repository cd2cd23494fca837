"""Size fields that leave out part of the sound: all of it is read, and a warning says so."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speech.audio import Recording
from speech.containers import read_promise
from speech.schema import AudioInfo
from speech.sizes import repair
from stenoflow.errors import CorruptMedia, TruncatedMedia, UnreadableMedia
from tests.media import RATE, at_rate, encode, speech

Normalised = Callable[..., tuple[AudioInfo, Recording]]

KINDS = {
    "wav": ("WAV", b"data", 4, "<I"),
    "rf64": ("RF64", b"ds64", 16, "<Q"),
    "aiff": ("AIFF", b"SSND", 4, ">I"),
    "au": ("AU", b".snd", 8, ">I"),
    "caf": ("CAF", b"data", 4, ">q"),
    "w64": ("W64", b"data\xf3\xac", 16, "<Q"),
}
"""Container, what precedes its size field, how far, and how the number is written."""
LIST = b"LIST" + struct.pack("<I", 1008) + b"INFO" + b"ICMT" + struct.pack("<I", 996) + b"made by a recorder ".ljust(996, b"x")
BEHIND = {
    "wav": LIST,
    "rf64": LIST,
    "aiff": b"ANNO" + struct.pack(">I", 600) + b"x" * 600,
    "caf": b"info" + struct.pack(">q", 700) + b"x" * 700,
    "w64": b"list\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a" + struct.pack("<Q", 24 + 800) + b"x" * 800,
}
"""A chunk that follows the sound."""


def samples() -> np.ndarray:
    return (speech()[: 8 * RATE] * 32767).astype(np.int16)


def written(path: Path, kind: str, share: float, behind: bytes = b"") -> Path:
    """Eight seconds of speech whose header tells of that share of them."""
    container, mark, offset, form = KINDS[kind]
    soundfile.write(path, samples(), RATE, format=container, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    at = data.index(mark) + offset
    (size,) = struct.unpack_from(form, data, at)
    struct.pack_into(form, data, at, int(size * share) & ~1)
    path.write_bytes(bytes(data) + behind)
    return path


@pytest.mark.parametrize("share", [0.5, 0.01])
@pytest.mark.parametrize("kind", KINDS)
def test_sound_that_the_header_leaves_out_is_read_with_a_warning(
    tmp_path: Path, normalised: Normalised, kind: str, share: float
) -> None:
    info, recording = normalised(written(tmp_path / f"half.{kind}", kind, share))
    assert recording.samples == 8 * RATE
    assert np.array_equal((recording.read(0, 8 * RATE) * 32768).astype(np.int16), samples())
    assert ["header" in warning for warning in info.warnings] == [True]


@pytest.mark.parametrize("ones", [False, True], ids=["zero", "ones"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_size_that_was_never_filled_in_leaves_nothing_out(
    tmp_path: Path, normalised: Normalised, kind: str, ones: bool
) -> None:
    path = written(tmp_path / f"live.{kind}", kind, 0.0)
    if ones:
        _, mark, offset, form = KINDS[kind]
        data = bytearray(path.read_bytes())
        width = struct.calcsize(form)
        at = data.index(mark) + offset
        data[at : at + width] = b"\xff" * width
        path.write_bytes(data)
    _, recording = normalised(path)
    assert recording.samples == 8 * RATE


@pytest.mark.parametrize("kind", KINDS)
def test_a_header_that_tells_of_more_than_there_is_is_refused(tmp_path: Path, normalised: Normalised, kind: str) -> None:
    with pytest.raises(TruncatedMedia):
        normalised(written(tmp_path / f"more.{kind}", kind, 3.0))


@pytest.mark.parametrize("kind", BEHIND)
def test_a_chunk_behind_the_sound_is_no_sound(tmp_path: Path, normalised: Normalised, kind: str) -> None:
    for share in (1.0, 0.5):
        info, recording = normalised(written(tmp_path / f"{share}.{kind}", kind, share, BEHIND[kind]))
        assert recording.samples == 8 * RATE
        assert len(info.warnings) == (share != 1.0)


def test_an_mp3_players_tag_and_padding_are_no_sound(tmp_path: Path, normalised: Normalised) -> None:
    for name, behind in (("id3v1", b"TAG" + b"song".ljust(125)), ("padding", bytes(400)), ("ape", b"APETAGEX" + bytes(600))):
        info, recording = normalised(written(tmp_path / f"{name}.wav", "wav", 1.0, behind))
        assert (recording.samples, info.warnings) == (8 * RATE, ())


def test_a_size_that_wrapped_at_four_gigabytes_ends_where_its_chunks_begin(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    head = b"RIFF" + struct.pack("<I", 1000) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16)
    with path.open("wb") as file:
        file.write(head + b"data" + struct.pack("<I", 1000))
        file.seek(44 + 1000 + (1 << 32))  # a hole: nothing is stored
        file.write(LIST)
    found = repair(path, read_promise(path))
    assert found is not None
    assert found.end == 44 + 1000 + (1 << 32)
    assert found.patches == ((40, b"\xff\xff\xff\xff"),)


def xing(path: Path, change: Callable[[int], int]) -> Path:
    """Ten seconds of MP3 whose header counts its frames otherwise than they are."""
    encode(path, at_rate(speech()[: 10 * RATE], 44100), 44100, "libmp3lame", bit_rate=96_000)
    data = bytearray(path.read_bytes())
    at = max(data.find(b"Xing"), data.find(b"Info")) + 8
    (frames,) = struct.unpack_from(">I", data, at)
    struct.pack_into(">I", data, at, change(frames))
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("change", [lambda n: n // 3, lambda n: 3 * n, lambda n: 10 * n, lambda n: 0xFFFFFFFF])
def test_an_mp3_that_counts_its_frames_wrongly_is_read_as_far_as_it_goes(
    tmp_path: Path, normalised: Normalised, change: Callable[[int], int]
) -> None:
    info, _ = normalised(xing(tmp_path / "call.mp3", change))
    assert info.duration == pytest.approx(10.0, abs=0.1)


def test_a_wav_of_big_endian_numbers_is_refused_rather_than_read_as_noise(tmp_path: Path, normalised: Normalised) -> None:
    path = tmp_path / "call.wav"
    soundfile.write(path, samples(), RATE, format="WAV", subtype="PCM_16", endian="BIG")
    assert path.read_bytes().startswith(b"RIFX")
    with pytest.raises(UnreadableMedia, match="RIFX"):
        normalised(path)


def test_links_of_an_ogg_chain_that_cannot_follow_each_other_are_no_end(tmp_path: Path, normalised: Normalised) -> None:
    """FFmpeg takes no link with other channels than the first one's."""
    links = [tmp_path / "one.ogg", tmp_path / "two.ogg"]
    soundfile.write(links[0], samples(), RATE, format="OGG", subtype="VORBIS")
    soundfile.write(links[1], np.stack([samples()] * 2).T, RATE, format="OGG", subtype="VORBIS")
    chain = tmp_path / "chain.ogg"
    chain.write_bytes(links[0].read_bytes() + links[1].read_bytes())
    with pytest.raises(CorruptMedia, match="could not be decoded"):
        normalised(chain)
