"""Decoding: what each kind of recording becomes, and how each unusable one is refused."""

from __future__ import annotations

import errno
import hashlib
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speech.audio import Recording, normalise
from speech.schema import AudioInfo
from stenoflow.errors import (
    CorruptMedia,
    EmptyMedia,
    ForbiddenMedia,
    MediaError,
    MediaTooLong,
    NoAudioTrack,
    StageCancelled,
    TruncatedMedia,
    UnreadableMedia,
    UnsuitableMedia,
)
from tests.media import RATE, at_rate, cut, encode, make_case, overwrite, seconds_of, speech, tiled, two_talks, wav

Normalised = Callable[..., tuple[AudioInfo, Recording]]


def whole(recording: Recording) -> np.ndarray:
    return recording.read(0, recording.samples)


def correlation(ours: np.ndarray, reference: np.ndarray) -> float:
    count = min(len(ours), len(reference))
    return float(np.corrcoef(ours[:count], reference[:count])[0, 1])


def likeness(ours: np.ndarray, reference: np.ndarray) -> float:
    """Their correlation once aligned to the sample."""
    return correlation(np.roll(ours, -round(delay(ours, reference) * RATE)), reference)


def delay(ours: np.ndarray, reference: np.ndarray) -> float:
    """Seconds by which `ours` lags `reference`."""
    size = 2 * max(len(ours), len(reference))
    cross = np.fft.irfft(np.fft.rfft(ours, size) * np.conj(np.fft.rfft(reference, size)), size)
    lag = int(np.argmax(cross))
    return (lag - size if lag > size // 2 else lag) / RATE


# -- identity and exactness -------------------------------------------------------------------------------------------


def test_16_khz_mono_passes_bit_for_bit(tmp_path: Path, normalised: Normalised) -> None:
    samples = (speech() * 32767).astype(np.int16)
    soundfile.write(tmp_path / "in.wav", samples, RATE, subtype="PCM_16")
    info, recording = normalised(tmp_path / "in.wav")
    assert np.array_equal((whole(recording) * 32768).astype(np.int16), samples)
    assert info.sha256 == hashlib.sha256(samples.astype("<i2").tobytes()).hexdigest()
    assert (info.samples, info.duration, info.warnings) == (len(samples), 30.0, ())


def test_the_same_samples_are_the_same_bytes_whatever_held_them(tmp_path: Path) -> None:
    samples = (speech() * 32767).astype(np.int16)
    results = []
    for file, container in (("a.wav", "WAV"), ("b.flac", "FLAC"), ("c.aiff", "AIFF"), ("d.mp3", "WAV"), ("e", "W64")):
        soundfile.write(tmp_path / file, samples, RATE, format=container, subtype="PCM_16")
        target = tmp_path / f"{file}.out.flac"
        info = normalise(tmp_path / file, target, max_duration=60)
        results.append((info.sha256, target.read_bytes()))
    assert all(result == results[0] for result in results)


def test_the_probe_says_what_the_source_was(tmp_path: Path, normalised: Normalised) -> None:
    path = encode(tmp_path / "in.mp4", np.stack([at_rate(speech(), 44100)] * 2), 44100, "aac", video=True)
    probe = normalised(path)[0].probe
    assert (probe.codec, probe.sample_rate, probe.channels, probe.has_video) == ("aac", 44100, 2, True)
    assert "mp4" in probe.container
    assert probe.declared_duration == pytest.approx(30, abs=0.1)


# -- every codec, at the times a player shows -------------------------------------------------------------------------

CODECS = [
    ("a.wav", 44100, "pcm_s16le", {}),
    ("a.wav", 48000, "pcm_f32le", {}),
    ("a.wav", 96000, "pcm_s24le", {}),
    ("a.wav", 22050, "pcm_u8", {}),
    ("a.wav", 8000, "adpcm_ima_wav", {}),
    ("a.w64", 44100, "pcm_s16le", {}),
    ("a.aiff", 44100, "pcm_s16be", {}),
    ("a.caf", 44100, "pcm_s16le", {}),
    ("a.au", 8000, "pcm_mulaw", {}),
    ("a.flac", 48000, "flac", {}),
    ("a.mp3", 44100, "libmp3lame", {}),
    ("a.mp3", 22050, "libmp3lame", {}),
    ("a.m4a", 44100, "aac", {}),
    ("a.m4a", 44100, "alac", {}),
    ("a.mp4", 48000, "libopus", {}),
    ("a.mov", 44100, "aac", {"video": True}),
    ("a.mp4", 44100, "aac", {"video": True, "options": {"movflags": "faststart"}}),
    ("a.ogg", 48000, "libopus", {}),
    ("a.opus", 16000, "libopus", {}),
    ("a.webm", 48000, "libopus", {}),
    ("a.mkv", 44100, "aac", {"video": True}),
    ("a.mka", 44100, "libmp3lame", {}),
    ("a.amr", 8000, "libopencore_amrnb", {}),
    ("a.wv", 44100, "wavpack", {}),
    ("a.tta", 44100, "tta", {}),
]


@pytest.mark.parametrize(("file", "rate", "codec", "options"), CODECS, ids=str)
def test_codecs_decode_whole_clean_and_on_time(
    tmp_path: Path, normalised: Normalised, file: str, rate: int, codec: str, options: dict
) -> None:
    info, recording = normalised(encode(tmp_path / file, at_rate(speech(), rate), rate, codec, **options))
    ours = whole(recording)
    lossless = codec.startswith(("pcm_s", "pcm_f", "flac", "alac", "tta", "wav"))
    assert info.warnings == ()
    assert info.duration == pytest.approx(30, abs=0.11)
    assert abs(delay(ours, speech())) < 0.007
    assert likeness(ours, at_rate_back(speech(), rate)) > (0.999 if lossless else 0.85)


def at_rate_back(samples: np.ndarray, rate: int) -> np.ndarray:
    """What is left of 16 kHz speech that went through `rate`, by scipy's resampler."""
    from scipy.signal import resample_poly

    divisor = int(np.gcd(rate, RATE))
    return resample_poly(at_rate(samples, rate), RATE // divisor, rate // divisor)


@pytest.mark.parametrize(
    ("file", "codec", "options"),
    [
        ("a.aac", "aac", {}),
        ("a.ts", "aac", {}),
        ("a.avi", "libmp3lame", {}),
        ("a.flv", "libmp3lame", {}),
        ("a.wma", "wmav2", {"bit_rate": 96000}),
        ("a.mp4", "aac", {"options": {"movflags": "frag_keyframe+empty_moov"}}),
    ],
)
def test_containers_that_do_not_tell_the_encoder_delay_are_late_by_it(
    tmp_path: Path, normalised: Normalised, file: str, codec: str, options: dict
) -> None:
    info, recording = normalised(encode(tmp_path / file, at_rate(speech(), 44100), 44100, codec, **options))
    assert info.warnings == ()
    assert 0 <= delay(whole(recording), speech()) < 0.05


def test_sound_that_begins_after_the_picture_keeps_its_time(tmp_path: Path, normalised: Normalised) -> None:
    for file in ("late.mkv", "late.mp4"):
        info, recording = normalised(encode(tmp_path / file, at_rate(speech(), 48000), 48000, "aac", video=True, start=1.5))
        assert delay(whole(recording), speech()) == pytest.approx(1.5, abs=0.03)
        assert info.duration == pytest.approx(31.5, abs=0.1)


def test_an_edit_list_that_delays_the_only_track_is_silence(tmp_path: Path, normalised: Normalised) -> None:
    _, recording = normalised(encode(tmp_path / "late.m4a", at_rate(speech(), 48000), 48000, "aac", start=2.0))
    assert delay(whole(recording), speech()) == pytest.approx(2.0, abs=0.03)


def test_gaps_in_the_time_stamps_become_silence(tmp_path: Path, normalised: Normalised) -> None:
    path = encode(tmp_path / "gaps.webm", at_rate(speech(), 48000), 48000, "libopus", pauses=((10.0, 2.0), (20.0, 0.05)))
    info, recording = normalised(path)
    assert info.duration == pytest.approx(32, abs=0.1)
    assert not recording.read(int(10.2 * RATE), int(11.8 * RATE)).any()
    assert abs(delay(recording.read(12 * RATE, 22 * RATE), speech()[10 * RATE : 20 * RATE])) < 0.002
    assert "has gaps of 2.0 s" in " ".join(info.warnings)


def test_a_clock_that_jumps_beyond_the_cap_adds_no_silence(tmp_path: Path, normalised: Normalised) -> None:
    path = encode(tmp_path / "jump.mka", at_rate(speech(), 48000), 48000, "libopus", pauses=((10.0, 90_000.0),))
    assert normalised(path)[0].duration == pytest.approx(30, abs=0.1)


def test_a_change_of_rate_and_channels_within_the_file_is_followed(tmp_path: Path, normalised: Normalised) -> None:
    first = encode(tmp_path / "1.mp3", at_rate(speech(), 44100), 44100, "libmp3lame").read_bytes()
    second = encode(tmp_path / "2.mp3", np.stack([at_rate(speech(), 24000)] * 2), 24000, "libmp3lame").read_bytes()
    (tmp_path / "both.mp3").write_bytes(first + second)
    info, recording = normalised(tmp_path / "both.mp3")
    assert info.duration == pytest.approx(60, abs=0.2)
    ours = whole(recording)
    assert likeness(ours[: 29 * RATE], speech()[: 29 * RATE]) > 0.98
    assert likeness(ours[31 * RATE : 59 * RATE], speech()[RATE : 29 * RATE]) > 0.98


def test_tracks_that_appear_on_the_way_do_not_disturb(tmp_path: Path, normalised: Normalised) -> None:
    sound = encode(tmp_path / "1.ts", at_rate(speech(), 48000), 48000, "aac").read_bytes()
    film = encode(tmp_path / "2.ts", at_rate(speech(), 48000), 48000, "aac", video=True).read_bytes()
    (tmp_path / "both.ts").write_bytes(sound + film)
    _, recording = normalised(tmp_path / "both.ts")
    assert likeness(recording.read(0, 29 * RATE), speech()[: 29 * RATE]) > 0.98


def test_cover_art_is_no_video(tmp_path: Path, normalised: Normalised) -> None:
    import av
    from av.stream import Disposition

    plain, path = encode(tmp_path / "plain.mp3", at_rate(speech(), 44100), 44100, "libmp3lame"), tmp_path / "cover.mp3"
    with av.open(str(plain)) as source, av.open(str(path), "w") as out:
        sound = out.add_stream_from_template(source.streams.audio[0])
        cover = out.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "rgb24"
        cover.disposition = Disposition.attached_pic
        out.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")))
        out.mux(cover.encode(None))
        for packet in source.demux(source.streams.audio[0]):
            if packet.size:
                packet.stream = sound
                out.mux(packet)
    info, _ = normalised(path)
    assert (info.probe.has_video, info.warnings) == (False, ())
    assert info.duration == pytest.approx(30, abs=0.1)


# -- channels ---------------------------------------------------------------------------------------------------------


def test_equal_channels_keep_their_level(tmp_path: Path, normalised: Normalised) -> None:
    info, recording = normalised(wav(tmp_path / "in.wav", np.stack([speech()] * 2)))
    assert np.abs(whole(recording) - speech()).max() < 1e-4
    assert info.warnings == ()


def test_one_silent_channel_leaves_the_other_clean(tmp_path: Path, normalised: Normalised) -> None:
    info, recording = normalised(wav(tmp_path / "in.wav", np.stack([speech(), np.zeros_like(speech())])))
    assert correlation(whole(recording), speech()) > 0.9999
    assert np.abs(whole(recording)).max() == pytest.approx(np.abs(speech()).max() / 2, rel=0.01)
    assert info.warnings == ()


def test_two_talks_at_once_are_told_from_a_call_that_takes_turns_and_from_two_microphones_in_a_room(
    tmp_path: Path, normalised: Normalised
) -> None:
    turns = np.arange(len(speech())) // (3 * RATE) % 2
    call = np.stack([speech() * (turns == 0), speech() * (turns == 1)])
    room = np.stack([speech(), 0.7 * np.roll(speech(), 40)])
    for name, samples, at_once in (("talks", two_talks(), True), ("call", call, False), ("room", room, False)):
        info = normalised(wav(tmp_path / f"{name}.wav", samples))[0]
        assert (info.warnings, info.carried and info.carried.at_once) == ((), at_once)


def test_surround_keeps_the_voice_of_the_centre_and_does_not_clip(tmp_path: Path, normalised: Normalised) -> None:
    music = seconds_of("music", 30)
    channels = np.stack([music, music, speech(), np.full_like(music, 0.9), 0.2 * music, 0.2 * music])
    _, recording = normalised(encode(tmp_path / "in.flac", channels, RATE, "flac"))
    expected = (0.7071 * (music + music) + speech() + 0.5 * 0.4 * music) / (2 * 0.7071 + 1 + 1)
    assert np.abs(whole(recording) - expected).max() < 1e-3


@pytest.mark.parametrize(("file", "codec"), [("a.m4a", "aac"), ("a.flac", "flac"), ("a.wav", "pcm_s16le")])
def test_eight_channels_decode(tmp_path: Path, normalised: Normalised, file: str, codec: str) -> None:
    """In planes, PyAV reads beyond them; see `speech.decode._Packer`."""
    path = encode(tmp_path / file, np.stack([at_rate(speech(), 48000)] * 8), 48000, codec)
    info, recording = normalised(path)
    assert (info.probe.channels, info.warnings) == (8, ())
    assert likeness(whole(recording), speech()) > 0.99


def test_only_the_first_of_several_tracks_is_taken_and_said(tmp_path: Path, normalised: Normalised) -> None:
    import av

    path = tmp_path / "two.mka"
    with av.open(str(path), "w") as out:
        streams = [out.add_stream("pcm_s16le", rate=RATE, layout="mono") for _ in range(2)]
        for stream, samples in zip(streams, (speech(), np.zeros_like(speech())), strict=True):
            frame = av.AudioFrame.from_ndarray((samples[np.newaxis] * 32767).astype(np.int16), "s16", "mono")
            frame.sample_rate, frame.pts = RATE, 0
            out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    info, recording = normalised(path)
    assert correlation(whole(recording), speech()) > 0.999
    assert "2 audio tracks" in info.warnings[0]


# -- short, silent, loud, odd -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("case", "samples"), [("one_sample", 1), ("short", 1600), ("silence", 320_000), ("noise", 320_000)])
def test_anything_with_a_sample_is_accepted(tmp_path: Path, normalised: Normalised, case: str, samples: int) -> None:
    info, recording = normalised(make_case(case, tmp_path))
    assert (info.samples, recording.samples, info.warnings) == (samples, samples, ())


def test_one_sample_at_a_high_rate_is_still_one(tmp_path: Path, normalised: Normalised) -> None:
    assert normalised(wav(tmp_path / "in.wav", np.full(1, 0.5, np.float32), 48000))[0].samples == 1


def test_clipping_is_said(tmp_path: Path, normalised: Normalised) -> None:
    assert "clipped" in normalised(make_case("clipped", tmp_path))[0].warnings[0]


def test_samples_that_are_not_numbers_become_silence(tmp_path: Path, normalised: Normalised) -> None:
    info, recording = normalised(make_case("nan", tmp_path))
    assert "101 samples" in info.warnings[0]
    assert np.isfinite(whole(recording)).all()
    assert not recording.read(100, 200).any()


def test_a_wrong_extension_and_telephone_quality_do_not_matter(tmp_path: Path, normalised: Normalised) -> None:
    for case in ("wrong_extension", "telephone", "video"):
        assert normalised(make_case(case, tmp_path))[0].duration == pytest.approx(30, abs=0.1)


# -- refusals ---------------------------------------------------------------------------------------------------------

REFUSED = {
    "zero": (EmptyMedia, "empty_media"),
    "no_samples": (EmptyMedia, "empty_media"),
    "text": (UnreadableMedia, "unreadable_media"),
    "random": (UnreadableMedia, "unreadable_media"),
    "playlist": (ForbiddenMedia, "forbidden_media"),
    "concat": (ForbiddenMedia, "forbidden_media"),
    "silent_video": (NoAudioTrack, "no_audio_track"),
    "truncated_wav": (TruncatedMedia, "truncated_media"),
    "truncated_mp4": (TruncatedMedia, "truncated_media"),
    "truncated_flac": (TruncatedMedia, "truncated_media"),
    "corrupt_mp3": (CorruptMedia, "corrupt_media"),
    "bomb": (MediaTooLong, "media_too_long"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unusable_media_have_an_error_each_and_leave_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], case: str
) -> None:
    source = make_case(case, tmp_path)
    target = tmp_path / "out" / "normalised.flac"
    target.parent.mkdir()
    with pytest.raises(MediaError) as caught:
        normalise(source, target, max_duration=120, name="the call")
    assert (type(caught.value), caught.value.code) == REFUSED[case]
    assert caught.value.exit_code == 3
    assert str(caught.value).startswith("The call ")
    assert str(caught.value).count("\n") == 0
    assert list(target.parent.iterdir()) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "text", ["v=0\no=- 0 0 IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n", '<?xml version="1.0"?>\n<MPD type="static"></MPD>']
)
@pytest.mark.parametrize("file", ["session.mp3", "manifest.mp4"])
def test_session_descriptions_and_manifests_are_refused(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(ForbiddenMedia):
        normalise(tmp_path / file, tmp_path / "out.flac", max_duration=60)


def test_a_declared_length_above_the_cap_is_refused_before_decoding(tmp_path: Path) -> None:
    told: list[float] = []
    with pytest.raises(MediaTooLong):
        normalise(
            wav(tmp_path / "in.wav", np.zeros(200_000, np.float32), 10),
            tmp_path / "out.flac",
            max_duration=3600,
            progress=told.append,
        )
    assert told == []


@pytest.mark.parametrize(
    ("file", "codec", "options"),
    [
        ("a.mp3", "libmp3lame", {}),
        ("a.webm", "libopus", {}),
        ("a.mka", "aac", {}),
        ("a.mp4", "aac", {"movflags": "faststart"}),
        ("a.aiff", "pcm_s16be", {}),
        ("a.w64", "pcm_s16le", {}),
        ("a.avi", "pcm_s16le", {}),
        ("a.caf", "pcm_s16le", {}),
        ("a.au", "pcm_s16be", {}),
        ("a.wma", "wmav2", {}),
    ],
)
def test_recordings_cut_short_are_refused_or_transcribed_as_far_as_they_go(
    tmp_path: Path, normalised: Normalised, file: str, codec: str, options: dict
) -> None:
    path = cut(encode(tmp_path / file, at_rate(speech(), 48000), 48000, codec, options=options, bit_rate=96000), 0.6)
    with pytest.raises(TruncatedMedia, match="ends early"):
        normalised(path)
    info, recording = normalised(path, allow_truncated=True)
    assert "ends early" in " ".join(info.warnings)
    assert info.duration == pytest.approx(18, abs=1.0)
    ours = whole(recording)
    assert likeness(ours, speech()[: len(ours)]) > 0.9


def test_a_wav_written_to_a_pipe_promises_nothing(tmp_path: Path, normalised: Normalised) -> None:
    data = bytearray(wav(tmp_path / "in.wav", speech()).read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    (tmp_path / "in.wav").write_bytes(data)
    assert normalised(tmp_path / "in.wav")[0].duration == 30.0


@pytest.mark.parametrize(
    ("file", "codec"), [("a.mp3", "libmp3lame"), ("a.m4a", "aac"), ("a.flac", "flac"), ("a.ogg", "libopus"), ("a.mka", "aac")]
)
def test_notable_damage_is_refused(tmp_path: Path, normalised: Normalised, file: str, codec: str) -> None:
    with pytest.raises(CorruptMedia):
        normalised(overwrite(encode(tmp_path / file, at_rate(speech(), 48000), 48000, codec), 0.4, 8))


@pytest.mark.parametrize(("file", "codec"), [("a.mp3", "libmp3lame"), ("a.m4a", "aac"), ("a.flac", "flac")])
def test_slight_damage_is_said(tmp_path: Path, normalised: Normalised, file: str, codec: str) -> None:
    info, recording = normalised(overwrite(encode(tmp_path / file, at_rate(speech(), 48000), 48000, codec), 0.01, 2))
    assert "damaged" in info.warnings[0]
    assert info.duration == pytest.approx(30, abs=0.7)
    assert correlation(whole(recording)[: 9 * RATE], speech()) > 0.9


# -- the machine ------------------------------------------------------------------------------------------------------


def test_progress_is_told_in_order_and_may_cancel(tmp_path: Path) -> None:
    source = tiled(tmp_path / "in.flac", 0.1)
    told: list[float] = []
    normalise(source, tmp_path / "out.flac", max_duration=3600, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(told) > 10

    def cancel(fraction: float) -> None:
        if fraction > 0.3:
            raise StageCancelled("cancelled")

    with pytest.raises(StageCancelled):
        normalise(source, tmp_path / "second.flac", max_duration=3600, progress=cancel)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.flac", "out.flac"]


def test_a_file_that_cannot_be_written_is_an_os_error_and_leaves_nothing(tmp_path: Path) -> None:
    """In a process of its own whose files may hold 100 kB, as on a disk that is full."""
    source = wav(tmp_path / "in.wav", seconds_of("noise", 30))
    code = (
        "import resource, signal, sys; from pathlib import Path; from speech.audio import normalise\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: normalise(Path(sys.argv[1]), Path(sys.argv[2]), max_duration=60)\n"
        "except OSError as error: print(error.errno)\n"
    )
    target = tmp_path / "out" / "normalised.flac"
    target.parent.mkdir()
    done = subprocess.run([sys.executable, "-c", code, source, target], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(errno.EFBIG)
    assert done.stderr == ""
    assert list(target.parent.iterdir()) == []


@pytest.mark.slow
def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    def peak(hours: float) -> int:
        source = tiled(tmp_path / f"{hours}.flac", hours)
        code = (
            "import resource, sys; from pathlib import Path; from speech.audio import normalise, Recording\n"
            "normalise(Path(sys.argv[1]), Path(sys.argv[2]), max_duration=43200)\n"
            "with Recording(Path(sys.argv[2])) as r: [w.sum() for _, w in r.blocks(480000, 480000)]\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, source, tmp_path / "out.flac"], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert peak(3.0) - peak(0.1) < 30_000  # kB


# -- reading ----------------------------------------------------------------------------------------------------------


def test_reads_are_exact_wherever_they_begin(tmp_path: Path) -> None:
    samples = (speech() * 32767).astype(np.int16)
    tiled_samples = np.tile(samples, 12)
    soundfile.write(tmp_path / "in.flac", tiled_samples, RATE, subtype="PCM_16")
    reference = tiled_samples.astype(np.float32) / 32768
    picks = np.random.default_rng(5)
    with Recording(tmp_path / "in.flac") as recording:
        for start in picks.integers(0, len(reference) - 160_000, 200):
            stop = start + int(picks.integers(0, 160_000))
            assert np.array_equal(recording.read(int(start), stop), reference[start:stop])


def test_padding_and_windows_cover_every_sample(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "in.flac", (speech()[:50_000] * 32767).astype(np.int16), RATE)
    with Recording(tmp_path / "in.flac") as recording:
        everything = recording.read(0, recording.samples)
        padded = recording.read(-100, recording.samples + 100, pad=True)
        assert np.array_equal(padded[100:-100], everything)
        assert not padded[:100].any()
        assert not padded[-100:].any()
        with pytest.raises(IndexError):
            recording.read(0, recording.samples + 1)
        windows = list(recording.blocks(16_000, 4_000))
        assert [start for start, _ in windows] == list(range(0, 40_000, 4_000))
        assert all(len(window) == 16_000 for _, window in windows)
        assert np.array_equal(windows[-1][1][:14_000], everything[-14_000:])


def test_threads_may_share_a_recording(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "in.flac", (speech() * 32767).astype(np.int16), RATE)
    with Recording(tmp_path / "in.flac") as recording:
        everything = recording.read(0, recording.samples)
        wrong: list[int] = []

        def work(seed: int) -> None:
            for start in np.random.default_rng(seed).integers(0, 400_000, 50):
                if not np.array_equal(recording.read(int(start), int(start) + 8000), everything[start : start + 8000]):
                    wrong.append(int(start))

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


@pytest.mark.parametrize("rate", [1, 3, 999, 3999, 3_072_001, 400_000_000])
@pytest.mark.parametrize("suffix", ["wav", "aiff", "au", "caf", "w64", "mka"])
def test_a_rate_that_no_speech_has_is_refused_at_once_in_every_container(tmp_path: Path, rate: int, suffix: str) -> None:
    source, told = claiming(tmp_path / f"in.{suffix}", rate), list[float]()
    with pytest.raises(UnsuitableMedia, match=f"{rate} samples per second"):
        normalise(source, tmp_path / "out.flac", max_duration=12 * 3600, progress=told.append)
    assert told == [] and not (tmp_path / "out.flac").exists()


@pytest.mark.parametrize("rate", [1, 3, 3999])
def test_a_rate_that_only_the_header_of_a_flac_claims_is_refused(tmp_path: Path, rate: int) -> None:
    """Its frames say 16 kHz; their time stamps are counted at the header's, which would put hours of silence between them."""
    source, told = tmp_path / "in.flac", list[float]()
    soundfile.write(source, speech()[: 2 * RATE], RATE)
    flac = bytearray(source.read_bytes())
    at = 8 + 10  # of STREAMINFO: 20 bits of rate, 3 of channels, 5 of bits per sample, 36 of samples
    rest = int.from_bytes(flac[at : at + 8], "big") & (1 << 44) - 1
    flac[at : at + 8] = (rate << 44 | rest).to_bytes(8, "big")
    source.write_bytes(flac)
    with pytest.raises(UnsuitableMedia, match=f"{rate} samples per second"):
        normalise(source, tmp_path / "out.flac", max_duration=12 * 3600, progress=told.append)
    assert told == []


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 65), (8000, 128), (3_072_000, 64)])
def test_more_channels_than_a_recording_has_are_refused(tmp_path: Path, rate: int, channels: int) -> None:
    source = tmp_path / "in.wav"
    soundfile.write(source, np.zeros((100, channels), np.int16), rate, subtype="PCM_16")
    with pytest.raises(UnsuitableMedia, match=f"{channels} channels"):
        normalise(source, tmp_path / "out.flac", max_duration=3600)


@pytest.mark.parametrize("rate", [4000, 5512, 6000, 8000, 384_000, 2_822_400])
def test_the_slowest_and_the_fastest_sound_is_taken(tmp_path: Path, rate: int, normalised: Normalised) -> None:
    assert normalised(wav(tmp_path / "in.wav", np.zeros(rate, np.float32), rate))[0].duration == pytest.approx(1)


def claiming(path: Path, rate: int) -> Path:
    """A recording of few bytes whose header says how fast it was sampled."""
    import av
    from av.audio.frame import AudioFrame

    with av.open(str(path), "w", format={"mka": "matroska"}.get(path.suffix[1:])) as container:
        stream = container.add_stream("pcm_s16be" if path.suffix in (".aiff", ".au") else "pcm_s16le", rate=rate, layout="mono")
        frame = AudioFrame.from_ndarray(np.ones((1, 400), np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
