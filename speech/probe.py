"""Opening a recording safely, and what its container says of itself.

The bytes are handed to FFmpeg through a file object without a name, every further open is refused, and only the
demuxers listed here may run: nothing but the one file is ever read, whatever the file asks for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from speech.containers import Promise, read_promise
from speech.schema import Probe
from speech.sizes import Repair, repair
from speech.sniff import HEAD, document_kind, has_header, headerless, lacks_a_rate
from speech.tracks import Track, TrackRequest, ranked, tracks_of
from stenoflow.errors import (
    CorruptMedia,
    EmptyMedia,
    ForbiddenMedia,
    NoAudioTrack,
    TruncatedMedia,
    UnreadableMedia,
    UnsuitableMedia,
)

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer

DEMUXERS = (
    # Containers and codecs of audio, video and broadcast
    "aac,ac3,aiff,ape,asf,au,avi,caf,dsf,dts,dtshd,dv,eac3,epaf,flac,flv,gxf,iff,ircam,loas,lxf,matroska,mlp,mov,mp3,mpc,mpc8,mpeg,"
    "mpegts,mxf,nut,nuv,ogg,oma,osq,pva,qoa,rka,rm,ivr,shn,sox,tak,truehd,tta,ty,voc,vqf,w64,wav,wavarc,webm,wsd,wtv,wv,xwma,bonk,"
    # Recorders, telephones and laboratories
    "act,aea,amr,amrnb,amrwb,avr,dhav,dss,g722,g723_1,g726le,g729,gsm,hcom,ilbc,nistsphere,nsp,pvf,qcp,sbc,smjpeg,wve,"
    "alaw,mulaw,s16le,sln"
)
"""All that hold speech in the one file. Left out: playlists, manifests, image sequences, network, text and subtitles, computer games."""

_POINTERS = (
    b"#extm3u",
    b"#ext-x-",
    b"ffconcat",
    b"[playlist]",
    b"[reference]",
    b"<mpd",
    b"<smil",
    b"<asx",
    b"<smoothstreamingmedia",
    b"<playlist",
    b"<?wpl",
    b"v=0\n",
    b"v=0\r\n",
    b"rtsp://",
    b"http://",
    b"https://",
    b"file://",
)
"""How playlists, manifests and session descriptions begin; in XML, within the first kilobyte."""

_EXACT = {"flac", "mov", "wav", "w64", "aiff", "au", "caf", "tta", "wv"}
"""Demuxers whose stream duration is counted, not estimated."""
_SAMPLE_CLOCKS = {"flac", "wav", "w64", "aiff", "au", "caf", "tta", "wv", "ape", "tak", "ogg"}
"""Demuxers whose time stamps count samples, at the rate that the container declares."""


LOWEST_RATE = 4000
"""Hz. Below it nothing of speech but its pitch is left, and a header's claim makes hours out of few bytes."""
HIGHEST_RATE = 3_072_000
"""Hz; the fastest DSD, as FFmpeg decodes it, has less."""
MOST_CHANNELS = 64
_MOST_PER_SECOND = 25_000_000
"""Samples of all channels: about a second is in memory at once."""


ANY_TRACK = TrackRequest()


class Media(NamedTuple):
    """An open recording and the audio track to decode."""

    container: InputContainer
    stream: AudioStream
    probe: Probe
    promise: Promise
    exact_duration: float | None
    """Seconds of the audio track where its container counts them, else None."""
    tracks: tuple[Track, ...]
    """The file's audio tracks that may be taken, the first choice first."""
    track: Track
    """The one to decode."""
    track_count: int
    """Audio tracks in the file."""
    alone: bool
    """The audio track is the only track: skipped bytes are lost audio."""
    origin: float
    """The container's time, in seconds, that a player shows as 0."""
    repair: Repair | None = None
    """How the file is read where its header leaves sound out."""

    @property
    def demuxer(self) -> str:
        return self.container.format.name.split(",")[0]


class _Source:
    """What FFmpeg may see of the file: its bytes, with the size fields corrected that leave sound out."""

    name = "recording"

    def __init__(self, path: Path, repair: Repair | None) -> None:
        self._file = path.open("rb", buffering=0)
        self.tell, self.close = self._file.tell, self._file.close
        self._patches = repair.patches if repair else ()
        self._end = repair.end if repair else None

    def read(self, size: int) -> bytes:
        if self._end is None:
            return self._file.read(size)
        at = self._file.tell()
        data = bytearray(self._file.read(max(min(size, self._end - at), 0)))
        for place, patch in self._patches:
            for offset, byte in enumerate(patch, place - at):
                if 0 <= offset < len(data):
                    data[offset] = byte
        return bytes(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == 2 and self._end is not None:
            offset, whence = self._end + offset, 0
        return self._file.seek(offset, whence)


@contextlib.contextmanager
def open_media(path: Path, name: str, asked: TrackRequest = ANY_TRACK, number: int | None = None) -> Iterator[Media]:
    """Open the recording at `path` for decoding; `name` is what messages call it.

    The track is the first choice by what was `asked`, or the one of that `number`. Raises EmptyMedia, ForbiddenMedia,
    UnreadableMedia, TruncatedMedia, CorruptMedia, NoAudioTrack or NoSuchTrack, and OSError when the file itself cannot be read.
    """
    import av
    from av.error import FFmpegError

    if path.stat().st_size == 0:
        raise EmptyMedia(f"{capitalised(name)} is empty (0 bytes); check that it was saved or uploaded completely.")
    with path.open("rb") as file:
        head = file.read(HEAD)
    _refuse_documents(head, name)
    bare = None if has_header(head) else headerless(path.name)
    promise = read_promise(path)
    av.logging.set_level(None)  # PyAV's default, but a library in this process may have raised it
    pointed: list[str] = []

    def refuse(url: str, _flags: int, _options: dict[str, Any]) -> NoReturn:
        pointed.append(url)
        raise PermissionError("a recording may not open other files")

    options = {
        "format_whitelist": DEMUXERS,
        "protocol_whitelist": "file",
        "probesize": "20000000",
        "analyzeduration": "20000000",
        **(bare[1] if bare else {}),
    }
    with contextlib.ExitStack() as stack:
        wrong = repair(path, promise)
        source = _Source(path, wrong)
        stack.callback(source.close)
        try:
            container = open_input(source, format=bare[0] if bare else None, container_options=options, io_open=refuse)
        except FFmpegError as error:
            if pointed:
                raise _forbidden(name) from error
            raise _unopened(name, promise, path) from error
        stack.enter_context(container)
        if pointed:
            raise _forbidden(name)
        yield _media(container, promise, name, asked, number)._replace(repair=wrong)


def open_input(file: Any, **options: Any) -> InputContainer:
    """`av.open`, whatever bytes the container's tags hold. Raises av.error.FFmpegError.

    Before 19, PyAV refuses a tag that is not UTF-8 unless it is asked to leave out what it cannot decode; since, it cannot be asked
    and gives lone surrogates (`tracks_of` leaves them out).
    """
    import av

    if int(av.__version__.partition(".")[0]) < 19:
        options["metadata_errors"] = "ignore"
    opened: InputContainer = av.open(file, "r", **options)
    return opened


def _media(container: InputContainer, promise: Promise, name: str, asked: TrackRequest, number: int | None) -> Media:
    from av.stream import Discard, Disposition

    streams = container.streams.audio
    if not streams:
        if promise.headless or (promise.cut and not len(container.streams)):
            raise _unopened(name, promise)
        raise NoAudioTrack(f"{capitalised(name)} has no audio track; give a file with sound.")
    tracks = ranked(tracks_of(streams), asked, capitalised(name))
    track = next((track for track in tracks if track.number == number), tracks[0])
    stream = streams[track.number - 1]
    context = stream.codec_context
    if context is None:
        raise UnreadableMedia(f"The audio track of {name} uses an unsupported codec; convert it to WAV, FLAC or MP3 first.")
    others = [other for other in container.streams if other.index != stream.index]
    for other in others:
        other.discard = Discard.all
    if context.name in ("flac", "alac", "ape", "tta", "wavpack"):
        context.thread_type = "AUTO"
    demuxer = container.format.name.split(",")[0]
    seconds = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else None
    videos = [video for video in container.streams.video if not video.disposition & Disposition.attached_pic]
    declared = seconds if seconds is not None else (container.duration / 1e6 if container.duration else None)
    probe = Probe(
        container=container.format.name,
        codec=context.name,
        sample_rate=context.sample_rate or 0,
        channels=context.layout.nb_channels,
        bit_rate=context.bit_rate or container.bit_rate or None,
        declared_duration=round(declared, 6) if declared is not None else None,
        has_video=bool(videos),
    )
    if promise.fragmented and seconds is not None:
        seconds -= max((container.start_time or 0) / 1e6, 0.0)  # its end is told, on a clock that may begin anywhere
    counted = demuxer == "mp3" and promise.counted and (seconds or 0.0) * _fewest_bytes(probe.sample_rate) < promise.held
    exact = seconds if demuxer in _EXACT or counted else None
    origin = _origin(container, demuxer, fragmented=promise.fragmented)
    return Media(container, stream, probe, promise, exact, tuple(tracks), track, len(streams), not others, origin)


def _fewest_bytes(rate: int) -> int:
    """Bytes of a second of MP3 at its lowest bit rate; a header that counts more frames than that leaves room for is wrong."""
    return 4000 if rate >= 32_000 else 1000


def is_sound(rate: int, channels: int) -> bool:
    """Whether speech may be recorded so: samples per second and channel, and channels."""
    return LOWEST_RATE <= rate <= HIGHEST_RATE and 1 <= channels <= MOST_CHANNELS and rate * channels <= _MOST_PER_SECOND


def check_sound(media: Media, name: str) -> None:
    """Raise UnsuitableMedia for a track that is declared not to be speech; its frames are judged again when they are decoded."""
    rate, channels = media.probe.sample_rate, media.probe.channels
    if media.demuxer in _SAMPLE_CLOCKS and media.stream.time_base:
        # FLAC's frames may tell of another rate than its header, which is what their time stamps are counted in.
        rate = min(rate, int(1 / media.stream.time_base))
    if rate and channels and not is_sound(rate, channels):
        raise UnsuitableMedia(
            f"{capitalised(name)} declares {rate} samples per second in {channels} channel{'s' * (channels > 1)}; speech has "
            f"{LOWEST_RATE} to {HIGHEST_RATE} in at most {MOST_CHANNELS}, so export it again as WAV or FLAC of 16 kHz."
        )


def _origin(container: InputContainer, demuxer: str, *, fragmented: bool) -> float:
    """Players begin at the earliest track's first time stamp, except that an MP4 edit list can delay the sound itself.

    The clock of fragments may begin anywhere: they may be cut out of a broadcast.
    """
    start = (container.start_time or 0) / 1e6
    return min(start, 0.0) if demuxer == "mov" and (start <= 10.0 or not fragmented) else start


def _refuse_documents(head: bytes, name: str) -> None:
    """Raise ForbiddenMedia for what points elsewhere, UnreadableMedia for a page or document where a recording was expected."""
    first = head[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    in_xml = first.startswith(b"<") and any(mark in first for mark in _POINTERS if mark.startswith(b"<"))
    if first.startswith(_POINTERS) or in_xml:
        raise _forbidden(name)
    if head.startswith(b"RIFX"):
        raise UnreadableMedia(
            f"{capitalised(name)} is a big-endian WAV (RIFX), which is not supported; convert it to WAV or FLAC first."
        )
    kind = document_kind(head)
    if kind == "a web page":
        raise UnreadableMedia(
            f"{capitalised(name)} is a web page, not a recording (perhaps a sign-in page, an error or a player); "
            "open the address in a browser, and give the address of the recording itself."
        )
    if kind is not None:
        raise UnreadableMedia(f"{capitalised(name)} is {kind}, not a recording; give the audio or video file itself.")


def _forbidden(name: str) -> ForbiddenMedia:
    return ForbiddenMedia(f"{capitalised(name)} is a playlist or refers to other files or hosts; give the recording itself.")


def _unopened(name: str, promise: Promise, path: Path | None = None) -> CorruptMedia | TruncatedMedia | UnreadableMedia:
    if promise.headless:
        return TruncatedMedia(
            f"{capitalised(name)} is an MP4 without its index (moov), probably because the recording or upload was interrupted; "
            "it cannot be decoded. Record, export or upload it again."
        )
    if promise.cut:
        return TruncatedMedia(
            f"{capitalised(name)} is truncated: its header declares {promise.claimed} bytes, but the file has {promise.held}; copy or upload it again."
        )
    if promise.claimed is not None:
        return CorruptMedia(
            f"{capitalised(name)} is damaged: the container is recognised but not readable; copy or export it again."
        )
    if path is not None and lacks_a_rate(path.name):
        return UnreadableMedia(
            f"{capitalised(name)} contains raw samples of unknown encoding and rate; give it an extension that says so, such as "
            ".sln16 for 16-bit samples at 16 kHz, .sln at 8 kHz, .ulaw or .alaw at 8 kHz, or convert it to WAV."
        )
    return UnreadableMedia(f"{capitalised(name)} is not in a supported format; give an audio or video file.")


def capitalised(name: str) -> str:
    """The name as a sentence begins with it; a path or file name keeps its case."""
    return name[0].upper() + name[1:] if name.startswith("the ") else name
