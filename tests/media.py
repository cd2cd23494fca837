"""Every kind of recording a user may hand in, made from signals and pyannote's sample (a real two-speaker call).

`make_case(name, folder)` writes one and returns its path; `CASES` says what each is. Codecs are the real ones of PyAV.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from av.container import OutputContainer
from av.video.stream import VideoStream
from scipy.signal import resample_poly

RATE = 16_000
Samples = np.ndarray


@functools.cache
def speech() -> Samples:
    """The sample call: 30 s of two people, (480000,) float32 at 16 kHz."""
    spec = find_spec("pyannote")
    assert spec is not None and spec.submodule_search_locations is not None
    samples, rate = soundfile.read(
        Path(next(iter(spec.submodule_search_locations)), "audio/sample/sample.wav"), dtype="float32"
    )
    assert rate == RATE
    return samples


def at_rate(samples: Samples, rate: int) -> Samples:
    """Float samples at 16 kHz, resampled to `rate` along the last axis."""
    divisor = int(np.gcd(rate, RATE))
    return resample_poly(samples, rate // divisor, RATE // divisor, axis=-1).astype(np.float32)


def encode(
    path: Path,
    samples: Samples,
    rate: int,
    codec: str,
    *,
    container: str | None = None,
    layout: str | None = None,
    start: float = 0.0,
    pauses: tuple[tuple[float, float], ...] = (),
    options: dict[str, str] | None = None,
    bit_rate: int | None = None,
    video: bool = False,
) -> Path:
    """Write (channels, samples) floats with any of PyAV's encoders; `start` and `pauses` (at, seconds) shift time stamps."""
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    samples = np.atleast_2d(samples)
    layout = layout or {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[len(samples)]
    with av.open(str(path), "w", format=container, container_options=options or {}) as out:
        pictures = _picture_track(out) if video else None
        stream = out.add_stream(codec, rate=rate, layout=layout)
        if bit_rate:
            stream.bit_rate = bit_rate
        context = stream.codec_context
        formats = [known.name for known in context.codec.audio_formats or ()]
        context.format = next((known for known in formats if known in ("fltp", "s16", "s16p")), context.format or formats[0])
        context.open()
        if pictures is not None:
            _add_pictures(out, pictures, samples.shape[1] / rate + start)
        framer = av.AudioResampler(format=context.format, layout=layout, rate=rate, frame_size=context.frame_size or 1024)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T, np.float32).reshape(1, -1), "flt", layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        shift = round(start * rate)
        position = 0
        for piece in framer.resample(frame) + framer.resample(None):
            late = sum(seconds for at, seconds in pauses if position >= at * rate)
            piece.pts = position + shift + round(late * rate)
            piece.time_base = Fraction(1, rate)
            position += piece.samples
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    return path


def _picture_track(out: OutputContainer) -> VideoStream:
    stream = out.add_stream("mpeg4", rate=5)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    return stream


def _add_pictures(out: OutputContainer, stream: VideoStream, seconds: float) -> None:
    for index in range(max(1, round(seconds * 5))):
        picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), index % 255, np.uint8), "rgb24")
        out.mux(stream.encode(picture))
    out.mux(stream.encode(None))


def silent_video(path: Path, seconds: float = 2.0) -> Path:
    with av.open(str(path), "w") as out:
        _add_pictures(out, _picture_track(out), seconds)
    return path


def wav(path: Path, samples: Samples, rate: int = RATE, subtype: str = "PCM_16") -> Path:
    """(channels, samples) or (samples,) as a WAV whatever the path's extension."""
    soundfile.write(path, samples.T, rate, format="WAV", subtype=subtype)
    return path


def cut(path: Path, share: float) -> Path:
    """Keep only the first `share` of the file's bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def overwrite(path: Path, share: float, places: int, seed: int = 1) -> Path:
    """Put noise over `share` of the file's bytes, spread over `places`, sparing its head."""
    data = bytearray(path.read_bytes())
    noise = np.random.default_rng(seed)
    length = int(len(data) * share / places)
    for place in range(places):
        at = len(data) * (place + 1) // (places + 1)
        data[at : at + length] = noise.bytes(length)
    path.write_bytes(data)
    return path


def marked(samples: Samples) -> Samples:
    """Speech with a burst of 5 kHz every half second, from a quarter on: its place can be found whatever became of the rest."""
    burst = (0.5 * np.hanning(480) * np.sin(2 * np.pi * 5000 * np.arange(480) / RATE)).astype(np.float32)
    out = 0.5 * samples
    for start in range(RATE // 4 - 240, len(out) - 480, RATE // 2):
        out[start : start + 480] += burst
    return out


def marks(samples: Samples, due: list[float], reach: float = 0.2) -> list[float | None]:
    """How many seconds each burst of `marked` is from where it is due; None for one that is not heard within `reach`."""
    energy = _burst_energy(samples)
    found: list[float | None] = []
    for moment in due:
        low, high = round((moment - reach) * RATE), round((moment + reach) * RATE)
        around = energy[max(low, 0) : max(high, 0)]
        found.append((max(low, 0) + int(np.argmax(around))) / RATE - moment if len(around) and _is_burst(around) else None)
    return found


def bursts(samples: Samples, reach: float = 0.1) -> list[float]:
    """Where the bursts of `marked` are heard, in seconds."""
    energy, wide = _burst_energy(samples), round(reach * RATE)
    found = []
    for start in range(0, len(energy), wide):
        place = start + int(np.argmax(energy[start : start + wide]))
        around = energy[max(place - 2 * wide, 0) : place + 2 * wide]
        if energy[place] == energy[max(place - wide, 0) : place + wide].max() and _is_burst(around):
            found.append(place / RATE)
    return found


def _burst_energy(samples: Samples) -> Samples:
    spectrum = np.fft.rfft(samples)
    frequencies = np.fft.rfftfreq(len(samples), 1 / RATE)
    spectrum[(frequencies < 4200) | (frequencies > 5800)] = 0
    window = np.hanning(321)
    return np.convolve(np.fft.irfft(spectrum, len(samples)) ** 2, window / window.sum(), "same")


def _is_burst(around: Samples) -> bool:
    return bool(around.max() > max(1e-7, 8 * float(np.median(around))))


def seconds_of(kind: str, seconds: float) -> Samples:
    """`silence`, `noise` or `music` (chords that change each second), float32 at 16 kHz."""
    count = round(seconds * RATE)
    if kind == "silence":
        return np.zeros(count, np.float32)
    if kind == "noise":
        return (0.1 * np.random.default_rng(7).standard_normal(count)).astype(np.float32)
    time = np.arange(count) / RATE
    roots = np.array([220.0, 174.61, 261.63, 196.0])[(time.astype(int)) % 4]
    chord = sum(
        np.sin(2 * np.pi * np.cumsum(roots * ratio) / RATE) / (1 + order) for order, ratio in enumerate((1, 1.25, 1.5, 2))
    )
    return (0.15 * chord * (0.6 + 0.4 * np.exp(-3 * (time % 1)))).astype(np.float32)


def two_talks() -> Samples:
    """(2, 480000): the call on the left, the same call half its length later on the right; both talk all the time."""
    return np.stack([speech(), np.roll(speech(), len(speech()) // 2)])


def tiled(path: Path, hours: float) -> Path:
    """The call over and over as 16 kHz FLAC, written block by block."""
    block = (speech() * 32767).astype(np.int16)
    left = round(hours * 3600 * RATE)
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16", format="FLAC") as file:
        while left > 0:
            file.write(block[:left])
            left -= len(block)
    return path


def bomb(path: Path, hours: float = 40.0) -> Path:
    """A FLAC of digital silence at 4 kHz, some kilobytes an hour, whose header does not say how long it is."""
    quarter = np.zeros(900 * 4000, np.int16)
    with soundfile.SoundFile(path, "w", samplerate=4000, channels=1, format="FLAC", subtype="PCM_16") as file:
        for _ in range(round(hours * 4)):
            file.write(quarter)
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # STREAMINFO's 36 bits of total samples, made 0: unknown
    data[22:26] = bytes(4)
    path.write_bytes(data)
    return path


def _text(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def _playlist(path: Path) -> Path:
    wav(path.with_name("target.wav"), speech())
    lines = ("#EXTM3U", "#EXT-X-TARGETDURATION:30", "#EXTINF:30,", f"file://{path.with_name('target.wav')}")
    return _text(path, "\n".join((*lines, "#EXTINF:30,", "http://127.0.0.1:9/secret.ts", "#EXT-X-ENDLIST", "")))


def _concat(path: Path) -> Path:
    wav(path.with_name("target.wav"), speech())
    return _text(path, f"ffconcat version 1.0\nfile '{path.with_name('target.wav')}'\n")


def _nan(path: Path) -> Path:
    samples = speech()[: 10 * RATE].copy()
    samples[100:200], samples[5000] = np.nan, np.inf
    return wav(path, samples, subtype="FLOAT")


def _wrong_extension(path: Path) -> Path:
    soundfile.write(path, speech(), RATE, format="FLAC", subtype="PCM_16")
    return path


CASES: dict[str, tuple[str, str, Callable[[Path], Path]]] = {
    # name: (file name, what it is, how it is made)
    "speech": ("speech.wav", "a two-speaker call", lambda p: wav(p, speech())),
    "zero": ("zero.wav", "zero bytes", lambda p: _text(p, "")),
    "no_samples": ("no_samples.wav", "a WAV header and nothing behind it", lambda p: wav(p, np.zeros(0, np.float32))),
    "short": ("short.wav", "0.1 s", lambda p: wav(p, speech()[20000:21600])),
    "one_sample": ("one_sample.wav", "a single sample", lambda p: wav(p, np.full(1, 0.5, np.float32))),
    "silence": ("silence.wav", "digital silence", lambda p: wav(p, seconds_of("silence", 20))),
    "noise": ("noise.wav", "white noise", lambda p: wav(p, seconds_of("noise", 20))),
    "music": ("music.wav", "chords", lambda p: wav(p, seconds_of("music", 20))),
    "telephone": ("telephone.wav", "8 kHz mu-law", lambda p: wav(p, at_rate(speech(), 8000), 8000, "ULAW")),
    "stereo": ("stereo.wav", "another talk in each channel", lambda p: wav(p, two_talks())),
    "clipped": ("clipped.wav", "clipped", lambda p: wav(p, np.clip(speech() * 40, -1, 1))),
    "truncated_wav": ("truncated.wav", "a WAV cut short", lambda p: cut(wav(p, speech()), 0.4)),
    "truncated_mp4": ("truncated.mp4", "an MP4 cut before its index", lambda p: cut(encode(p, speech(), RATE, "aac"), 0.5)),
    "truncated_flac": ("truncated.flac", "a FLAC cut short", lambda p: cut(_wrong_extension(p), 0.5)),
    "corrupt_mp3": (
        "corrupt.mp3",
        "an MP3 with 40 % of its bytes overwritten",
        lambda p: overwrite(encode(p, speech(), RATE, "libmp3lame"), 0.4, 8),
    ),
    "random": ("random.mp3", "random bytes", lambda p: (p.write_bytes(np.random.default_rng(3).bytes(100_000)), p)[1]),
    "text": ("text.mp3", "a text file", lambda p: _text(p, "This is not a recording.\n" * 100)),
    "playlist": ("playlist.mp3", "a playlist that points at a file and a host", _playlist),
    "concat": ("concat.wav", "an ffconcat script", _concat),
    "video": ("video.mp4", "a video with sound", lambda p: encode(p, speech(), RATE, "aac", video=True)),
    "silent_video": ("silent_video.mp4", "a video without sound", silent_video),
    "wrong_extension": ("wrong_extension.mp4", "a FLAC named .mp4", _wrong_extension),
    "nan": ("nan.wav", "a float WAV with NaN and infinity", _nan),
    "bomb": ("bomb.flac", "two megabytes that decode to 40 hours", bomb),
}


def make_case(name: str, folder: Path) -> Path:
    """Write the case `name` of CASES into `folder`."""
    file_name, _, make = CASES[name]
    return make(folder / file_name)
