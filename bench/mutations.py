"""Containers as they come from broken recorders, cables and networks: speech, mutated by a seed, and what a player shows of it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np

from tests.media import RATE, at_rate, cut, encode, marked, overwrite, speech

SECONDS = 10.0
Clock = Callable[[float], float]

KINDS: dict[str, tuple[str, int, str]] = {
    "wav": ("wav", 44100, "pcm_s16le"),
    "aiff": ("aiff", 44100, "pcm_s16be"),
    "caf": ("caf", 48000, "pcm_s16le"),
    "flac": ("flac", 44100, "flac"),
    "mp3": ("mp3", 44100, "libmp3lame"),
    "mp4": ("m4a", 48000, "aac"),
    "matroska": ("mkv", 48000, "libopus"),
    "mpegts": ("ts", 48000, "aac"),
    "ogg": ("ogg", 48000, "libopus"),
    "flv": ("flv", 44100, "libmp3lame"),
}
"""Kind → extension, rate and codec."""
STAMPED = ("mp4", "matroska", "mpegts", "flv")
"""Containers whose packets have time stamps of their own."""
TRACKED = ("mp4", "matroska", "mpegts")
SIZED = {"wav": (b"data", 4, "<I"), "aiff": (b"SSND", 4, ">I"), "caf": (b"data", 4, ">q")}


@dataclass
class Mutant:
    """One file, and what should come of it."""

    path: Path
    kind: str
    what: str
    clock: Clock = field(default=lambda second: second)
    """From a second of the speech to the second that a player shows it at."""
    damaged: bool = False
    """Whether a refusal, or a warning in place of some of the speech, is an answer."""


def base() -> np.ndarray:
    """Ten seconds of two people with a mark every half second, (samples,) at 16 kHz."""
    return marked(speech()[7 * RATE : round((7 + SECONDS) * RATE)])


def mutant(folder: Path, seed: int) -> Mutant:
    """The file of that seed; kinds and mutations take turns, their measure is random."""
    random = np.random.default_rng(seed)
    kind = list(KINDS)[seed % len(KINDS)]
    extension, rate, codec = KINDS[kind]
    possible = [make for make, kinds in MUTATIONS if kind in kinds]
    make = possible[(seed // len(KINDS)) % len(possible)]
    path = folder / f"{seed:03}.{extension}"
    return make(path, kind, rate, codec, random)


def _plain(path: Path, kind: str, rate: int, codec: str, samples: np.ndarray | None = None) -> Path:
    sound = base() if samples is None else samples
    lossless = codec.startswith(("pcm", "flac"))
    return encode(path, at_rate(sound, rate), rate, codec, bit_rate=None if lossless else 96000 * len(np.atleast_2d(sound)))


def _channels(path: Path, kind: str, rate: int, codec: str, random: np.random.Generator) -> Mutant:
    level = float(random.choice([-1.0, -0.7, 0.0, 1.0]))
    pair = np.stack([base(), level * base()])
    if random.random() < 0.5:
        pair = pair[::-1]
    return Mutant(_plain(path, kind, rate, codec, pair), kind, f"second channel × {level}")


def _recorder(path: Path, kind: str, rate: int, codec: str, random: np.random.Generator) -> Mutant:
    places = range(6) if codec.startswith(("pcm", "flac")) else (0, 1, 2, 4, 5)  # others filter what is above the low effects
    place = int(random.choice(places))
    six = np.zeros((6, len(base())), np.float32)
    six[place] = base()
    return Mutant(_plain(path, kind, rate, codec, six), kind, f"voice on channel {place + 1} of 6")


def _cut(path: Path, kind: str, rate: int, codec: str, random: np.random.Generator) -> Mutant:
    share = float(random.uniform(0.2, 0.95))
    return Mutant(cut(_plain(path, kind, rate, codec), share), kind, f"cut to {share:.0%}", damaged=True)


def _noisy(path: Path, kind: str, rate: int, codec: str, random: np.random.Generator) -> Mutant:
    share, places = float(random.uniform(0.002, 0.1)), int(random.integers(1, 6))
    path = overwrite(_plain(path, kind, rate, codec), share, places, seed=int(random.integers(1 << 30)))
    return Mutant(path, kind, f"{share:.1%} overwritten in {places} places", damaged=True)


def _size(path: Path, kind: str, rate: int, codec: str, random: np.random.Generator) -> Mutant:
    mark, offset, form = SIZED[kind]
    share = float(random.uniform(0.05, 0.9))
    data = bytearray(_plain(path, kind, rate, codec).read_bytes())
    at = data.index(mark) + offset
    (size,) = struct.unpack_from(form, data, at)
    struct.pack_into(form, data, at, int(size * share) & ~3)
    path.write_bytes(data)
    return Mutant(path, kind, f"size field at {share:.0%}")


def _renamed(path: Path, kind: str, rate: int, codec: str, random: np.random.Generator) -> Mutant:
    other = path.with_suffix(str(random.choice([".wav", ".mp3", ".mp4", ".ogg", ".bin", ".ts"])))
    return Mutant(_plain(path, kind, rate, codec).rename(other), kind, f"named {other.suffix}")


def _pace(path: Path, kind: str, rate: int, codec: str, random: np.random.Generator) -> Mutant:
    pace = float(random.choice([0.9, 0.95, 0.98, 0.99, 1.01, 1.02, 1.05, 1.1]))
    return _stamped(path, kind, rate, codec, lambda second: second * pace, f"time stamps × {pace}")


def _hole(path: Path, kind: str, rate: int, codec: str, random: np.random.Generator) -> Mutant:
    hole, at = float(random.uniform(0.2, 30)), float(random.uniform(2, 8))
    return _stamped(path, kind, rate, codec, lambda second: second + hole * (second >= at), f"a hole of {hole:.1f} s")


def _step(path: Path, kind: str, rate: int, codec: str, random: np.random.Generator) -> Mutant:
    step, at = float(random.uniform(-0.4, -0.05)), float(random.uniform(2, 6))
    return _stamped(path, kind, rate, codec, lambda second: second + step * (second >= at), f"a step of {step:.2f} s")


def _late(path: Path, kind: str, rate: int, codec: str, random: np.random.Generator) -> Mutant:
    start = float(random.uniform(0.1, 20))
    path = encode(path, at_rate(base(), rate), rate, codec, start=start, bit_rate=96000)
    shown = start if kind == "mp4" else 0.0  # an edit list; other clocks begin anywhere
    return Mutant(path, kind, f"begins at {start:.1f} s", lambda second: second + shown)


def _tracks(path: Path, kind: str, rate: int, codec: str, random: np.random.Generator) -> Mutant:
    place = int(random.integers(2, 4))
    sources = [
        encode(path.with_name(f"{path.stem}-{number}.mka"), at_rate(sound, rate), rate, codec, bit_rate=96000)
        for number, sound in ((1, np.zeros_like(base())), (place, base()))
    ]
    with av.open(str(path), "w") as out:
        inputs = [av.open(str(sources[number == place])) for number in range(1, place + 1)]
        streams = [out.add_stream_from_template(file.streams.audio[0]) for file in inputs]
        for file, stream in zip(inputs, streams, strict=True):
            for packet in file.demux(file.streams.audio[0]):
                if packet.dts is not None:
                    packet.stream = stream
                    out.mux(packet)
            file.close()
    return Mutant(path, kind, f"{place - 1} silent tracks before the voice")


def _stamped(path: Path, kind: str, rate: int, codec: str, clock: Clock, what: str) -> Mutant:
    """The speech with its packets' time stamps as `clock` has them."""
    source = _plain(path.with_name(f"{path.stem}-plain{path.suffix}"), kind, rate, codec)
    with av.open(str(source)) as plain, av.open(str(path), "w") as out:
        track = plain.streams.audio[0]
        stream = out.add_stream_from_template(track)
        begin, last = float((track.start_time or 0) * track.time_base), -1
        for packet in plain.demux(track):
            if packet.pts is None:
                continue
            moment = clock(float(packet.pts * packet.time_base) - begin) + max(begin, 0.0)
            packet.pts = packet.dts = last = max(round(moment / packet.time_base), last + 1)
            packet.stream = stream
            out.mux(packet)
    return Mutant(path, kind, what, clock)


MUTATIONS: tuple[tuple[Callable[..., Mutant], tuple[str, ...]], ...] = (
    (_channels, tuple(KINDS)),
    (_cut, tuple(KINDS)),
    (_recorder, ("wav", "aiff", "caf", "flac", "mp4", "matroska")),
    (_size, tuple(SIZED)),
    (_pace, STAMPED),
    (_hole, STAMPED),
    (_step, STAMPED),
    (_late, STAMPED),
    (_tracks, TRACKED),
    (_noisy, ("flac", "mp3", "mp4", "matroska", "mpegts", "ogg", "flv")),  # of bare samples nothing tells
    (_renamed, tuple(KINDS)),
)
