"""What the first bytes of a file say it is: a recording, or a document that came instead of one."""

from __future__ import annotations

import io
import re
import struct

HEAD = 65536
"""Bytes that are enough to recognise a recording without a header of its own (MP3, AAC, transport streams)."""

_MAGIC = (
    b"RIFF",
    b"RF64",
    b"BW64",
    b".snd",
    b"caff",
    b"riff\x2e\x91\xcf\x11",  # Sony Wave64
    b"fLaC",
    b"OggS",
    b"\x1a\x45\xdf\xa3",  # Matroska, WebM
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF: wma, wmv
    b"#!AMR",
    b"ID3",
    b"FLV\x01",
    b"MAC ",
    b"wvpk",
    b"TTA1",
    b"MP+",
    b"MPCK",
    b"DSD ",
    b"ajkg",  # Shorten
    b"Creative Voice File\x1a",
    b".RMF",
    b".ra\xfd",
    b"NIST_1A",
    b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02",  # MXF
    b"\x00\x00\x01\xba",  # MPEG program stream
    b"\x02dss",
    b"\x03dss",
)
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp", b"moof", b"pnot")

HEADERLESS: dict[str, tuple[str, dict[str, str]]] = {
    **{
        f".sln{kilohertz or ''}": ("s16le", {"sample_rate": str(rate)})
        for kilohertz, rate in (
            *((0, 8000), (8, 8000), (12, 12000), (16, 16000), (24, 24000), (32, 32000)),
            *((44, 44100), (48, 48000), (96, 96000), (192, 192000)),
        )
    },
    **dict.fromkeys((".ulaw", ".ul", ".ulw", ".mulaw", ".pcmu"), ("mulaw", {"sample_rate": "8000"})),
    **dict.fromkeys((".alaw", ".al", ".alw", ".pcma"), ("alaw", {"sample_rate": "8000"})),
    **dict.fromkeys((".g722", ".722"), ("g722", {})),
    ".gsm": ("gsm", {}),
    ".g729": ("g729", {}),
    **dict.fromkeys((".g723", ".g723_1"), ("g723_1", {})),
    ".g726": ("g726le", {"code_size": "4"}),
    **{f".g726-{8 * bits}": ("g726le", {"code_size": str(bits)}) for bits in (2, 3, 4, 5)},
}
"""Telephony files without any header, by their extension: FFmpeg's demuxer and its options. Rates as Asterisk names them."""

_UNSAID = (".pcm", ".raw", ".s16", ".sw", ".vox", ".dat", ".bin")
"""Extensions of bare samples that do not say which: programs disagree on encoding and rate."""

_DOCUMENTS = (
    (b"%PDF-", "a PDF document"),
    (b"{\\rtf", "an RTF document"),
    (b"PK\x03\x04", "a ZIP archive or an office document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old office document"),
    (b"\x89PNG\r\n", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"BM", "a picture"),
    (b"\x7fELF", "a program"),
    (b"SQLite format 3\x00", "a database"),
)
_HTML = re.compile(rb"<(!doctype\s+html|html|head|body|script|meta|title|iframe)\b", re.IGNORECASE)
_XML_PREAMBLE = re.compile(rb"\A(\s|<\?xml.*?\?>|<!--.*?-->)+", re.DOTALL)
_JSON = re.compile(rb'[\[{]\s*(["\[{\]}\d-]|true|false|null)')


def document_kind(head: bytes) -> str | None:
    """What a document is called (`a web page`), given its first bytes; None for what may be a recording."""
    for magic, kind in _DOCUMENTS:
        if head.startswith(magic) and (magic != b"BM" or head[6:10] == bytes(4)):
            return kind
    text = _as_ascii(head)
    markup = _XML_PREAMBLE.sub(b"", text, count=1) if text.startswith(b"<") else text
    if _HTML.match(markup):
        return "a web page"
    if text.startswith(b"<?xml") or re.match(rb"<[a-zA-Z!]", markup):
        return "an XML document"
    if _JSON.match(text) and all(byte >= 0x20 or byte in b"\t\r\n" for byte in text[:256]):
        return "a JSON document"
    return None


def has_header(head: bytes) -> bool:
    """Whether the file begins with the signature of a container or codec that is known here."""
    if head[4:8] in _MP4_BOXES and struct.unpack(">I", head[:4])[0] not in range(2, 8):
        return True
    return head.startswith(_MAGIC) or (head[:4] == b"FORM" and head[8:11] in (b"AIF", b"8SV"))


def looks_like_media(head: bytes, name: str) -> bool:
    """Whether a file that begins with `head` (`HEAD` bytes do) and is called `name` may be a recording. It opens nothing."""
    if document_kind(head) is not None:
        return False
    if has_header(head) or (head and headerless(name) is not None):
        return True
    return _decodes(head)


def headerless(name: str) -> tuple[str, dict[str, str]] | None:
    """FFmpeg's demuxer, and its options, for a file of bare samples that only its extension describes."""
    return HEADERLESS.get(extension(name))


def lacks_a_rate(name: str) -> bool:
    return extension(name) in _UNSAID


def extension(name: str) -> str:
    """Lower case, with its dot."""
    _, dot, last = name.rpartition(".")
    return f".{last.lower()}" if dot else ""


def _decodes(head: bytes) -> bool:
    """Whether FFmpeg recognises the bytes and decodes a frame of them: its guesses at noise and text do not."""
    from av.error import FFmpegError

    from speech.probe import DEMUXERS, open_input

    try:
        with open_input(io.BytesIO(head), container_options={"format_whitelist": DEMUXERS}) as file:
            for stream in [*file.streams.audio, *file.streams.video]:
                file.seek(0)
                return any(packet.decode() for packet in file.demux(stream))
    except (FFmpegError, ValueError, IndexError, OSError):
        pass
    return False


def _as_ascii(head: bytes) -> bytes:
    """Text of any Unicode encoding with a mark, without the mark and leading space; other bytes as they are."""
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if head.startswith(mark):
            head = head.removeprefix(mark)
            if encoding != "utf-8":
                head = head[: len(head) & ~1].decode(encoding, errors="replace").encode("ascii", errors="replace")
            break
    return head.lstrip()
