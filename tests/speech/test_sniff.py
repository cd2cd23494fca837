"""What is recognised by its first bytes, and what by its extension alone."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from speech.audio import Recording
from speech.schema import AudioInfo
from speech.sniff import HEAD, looks_like_media
from stenoflow.errors import UnreadableMedia
from tests.media import RATE, at_rate, encode, silent_video, speech, wav

Normalised = Callable[..., tuple[AudioInfo, Recording]]

PAGE = "<html><body>Sign in</body></html>"
DOCUMENTS = {
    "page": (PAGE.encode(), "a web page"),
    "page with doctype": (b"\xef\xbb\xbf\n <!DOCTYPE html>\n" + PAGE.encode(), "a web page"),
    "page after a comment": (b"<!-- saved from url=(0014)about:internet -->\n" + PAGE.encode(), "a web page"),
    "xhtml": (b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0">' + PAGE.encode(), "a web page"),
    "utf-16 page": (b"\xff\xfe" + PAGE.encode("utf-16-le"), "a web page"),
    "json error": (b'{"error": "access denied"}', "a JSON document"),
    "json list": (b'[\n  {"id": 1}]', "a JSON document"),
    "xml error": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "an XML document"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "an XML document"),
    "pdf": (b"%PDF-1.7\n", "a PDF document"),
    "zip": (b"PK\x03\x04", "a ZIP archive"),
    "png": (b"\x89PNG\r\n\x1a\n", "a picture"),
    "jpeg": (b"\xff\xd8\xff\xe0", "a picture"),
}


@pytest.mark.parametrize("file", ["talk.mp3", "talk", "talk.ulaw"])
@pytest.mark.parametrize("case", DOCUMENTS)
def test_a_document_in_place_of_a_recording_is_named(tmp_path: Path, normalised: Normalised, case: str, file: str) -> None:
    content, kind = DOCUMENTS[case]
    (tmp_path / file).write_bytes(content + b" " * 2000)
    with pytest.raises(UnreadableMedia, match=kind) as caught:
        normalised(tmp_path / file)
    assert caught.value.code == "unreadable_media"
    assert not looks_like_media(content, file)


def telephone(rate: int) -> np.ndarray:
    return (at_rate(speech(), rate) * 32767).astype("<i2")


RAW = {
    **{f"call.sln{name}": (rate, "s16le") for name, rate in (("", 8000), ("8", 8000), ("12", 12000), ("16", 16000))},
    **{f"call.sln{name}": (rate, "s16le") for name, rate in (("24", 24000), ("32", 32000), ("44", 44100), ("48", 48000))},
    **{f"call.{name}": (8000, "mulaw") for name in ("ulaw", "ul", "ULAW", "pcmu")},
    **{f"call.{name}": (8000, "alaw") for name in ("alaw", "al", "pcma")},
    "call.g722": (16000, "g722"),
}


@pytest.mark.parametrize("file", RAW)
def test_bare_samples_are_read_as_their_extension_says(tmp_path: Path, normalised: Normalised, file: str) -> None:
    rate, codec = RAW[file]
    if codec == "s16le":
        (tmp_path / file).write_bytes(telephone(rate).tobytes())
    else:
        encoder = codec if codec == "g722" else f"pcm_{codec}"
        encode(tmp_path / "raw", at_rate(speech(), rate), rate, encoder, container=codec).rename(tmp_path / file)
    info, recording = normalised(tmp_path / file)
    ours = recording.read(0, recording.samples)
    assert info.duration == pytest.approx(30, abs=0.01)
    delayed = 22 if codec == "g722" else 0  # by its filter bank
    assert np.corrcoef(ours[delayed : 29 * RATE + delayed], speech()[: 29 * RATE])[0, 1] > 0.8


def test_a_header_counts_for_more_than_an_extension(tmp_path: Path, normalised: Normalised) -> None:
    info, recording = normalised(wav(tmp_path / "call.ulaw", speech(), RATE))
    assert (info.probe.codec, recording.samples) == ("pcm_s16le", 30 * RATE)


@pytest.mark.parametrize("file", ["call.pcm", "call.raw", "call.vox"])
def test_samples_of_an_unsaid_rate_are_refused_with_the_names_that_say_it(
    tmp_path: Path, normalised: Normalised, file: str
) -> None:
    (tmp_path / file).write_bytes(telephone(8000).tobytes())
    with pytest.raises(UnreadableMedia, match=r"\.sln16 .*\.ulaw"):
        normalised(tmp_path / file)


def dictation(seconds: float) -> bytes:
    """A DSS file of Olympus' and Philips' dictation machines: header, and blocks of 512 bytes with frames of noise."""
    header = bytearray(2 * 512)
    header[:4] = b"\x02dss"
    header[0x26:0x3E] = b"240101120000" * 2  # when it began and ended
    block = struct.pack("<HBBBB", 0, 0, 12, 0, 0)  # a codec of 0: DSS standard play
    payload = np.random.default_rng(1).bytes(506)
    return bytes(header) + (block + payload) * round(seconds * 13_700 / 8 / 506)


def test_dictation_machines_are_read(tmp_path: Path, normalised: Normalised) -> None:
    (tmp_path / "note.dss").write_bytes(dictation(10))
    info, _ = normalised(tmp_path / "note.dss", allow_truncated=True)
    assert info.probe.codec == "dss_sp"
    assert info.duration == pytest.approx(10, abs=1)


@pytest.mark.parametrize(
    ("file", "codec"),
    [
        ("a.mp3", "libmp3lame"),
        ("a.aac", "aac"),
        ("a.ts", "aac"),
        ("a.m4a", "aac"),
        ("a.ogg", "libopus"),
        ("a.amr", "libopencore_amrnb"),
    ],
)
def test_recordings_of_any_name_look_like_media(tmp_path: Path, file: str, codec: str) -> None:
    rate = 8000 if file == "a.amr" else 48000
    content = encode(tmp_path / file, at_rate(speech(), rate), rate, codec).read_bytes()
    assert looks_like_media(content[:HEAD], "a")
    assert looks_like_media(content[:HEAD], "notes.txt")


def test_a_film_and_a_name_of_bare_samples_look_like_media(tmp_path: Path) -> None:
    assert looks_like_media(silent_video(tmp_path / "a.mkv").read_bytes(), "a")
    assert looks_like_media(b"\xff" * 100, "call.ulaw")
    assert not looks_like_media(b"", "call.ulaw")


def test_noise_text_and_tables_do_not_look_like_media() -> None:
    assert not any(looks_like_media(np.random.default_rng(seed).bytes(HEAD), "a") for seed in range(20))
    for text in ("A line of notes.\n" * 500, "name,start,end\na,0,1\n" * 500, "\0" * 5000, "#!/bin/sh\necho\n"):
        assert not looks_like_media(text.encode(), "a.bin")
