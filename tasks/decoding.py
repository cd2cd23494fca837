"""From the bytes of a recording to the normalised audio that every stage reads. Needs no Prefect."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from infra.artifacts import ArtifactRef
from infra.compute import get_store
from infra.jobs import ProgressSink, engine_required
from infra.names import output_stem
from infra.settings import get_settings
from infra.storage_errors import NO_SPACE
from speech.schema import Carried, ChosenTrack
from speech.stored import parsed
from stenoflow.errors import MediaTooLong, StorageFull
from stenoflow.types import Frozen

if TYPE_CHECKING:
    from infra.sources import Fetched

DECODER_VERSION = 2
"""Raised when the same bytes decode to other samples."""


class Recording(Frozen):
    """The recording that a run works on, once it is fetched and decoded."""

    audio: ArtifactRef
    name: str
    """For people: the source without credentials and query."""
    stem: str
    """What the exported files are called."""
    duration: float
    """Seconds."""
    warnings: tuple[str, ...] = ()
    track: ChosenTrack | None = None
    """Which audio track it is, where the file has several."""
    reused: bool = False
    """The same bytes had been decoded before."""
    channels: tuple[ArtifactRef, ...] = ()
    """Each channel that is transcribed by itself; empty where `audio` is. `channel` among its facts is its number."""

    tracks: tuple[Recording, ...] = ()
    """Each speaker's recording, of a session of several; `audio` is the longest."""

    def apart(self) -> tuple[Recording, ...]:
        """Its channels or tracks as recordings, each with the times of the whole; none where it is transcribed as one."""
        return self.tracks or tuple(
            self.model_copy(update={"audio": audio, "channels": (), "stem": f"channel {audio.meta['channel']}"})
            for audio in self.channels
        )


class FetchCall(Frozen):
    source: str
    label: str
    """For people: without credentials and query."""
    named: bool = True
    """Whether `label` was chosen for it; else the name that its server gives it takes its place."""
    allow_truncated: bool = False
    again: bool = False
    """Decode although these bytes were decoded before."""
    max_duration: float | None = None
    """Seconds that this run's recording may last; the settings' cap when it is lower, or there is no other."""

    track: str | None = None
    """Which of several audio tracks: its number, or its language."""
    language: str | None = None
    """What is spoken, where that was said: of several tracks, one that is tagged so comes first."""
    channels: Literal["mix", "separate", "auto"] = "mix"
    """Whether channels are transcribed by themselves; `auto`: where each carries a voice of its own."""

    @property
    def longest(self) -> float:
        cap = get_settings().limits.max_duration
        return cap if self.max_duration is None else min(cap, self.max_duration)

    def recording(self, audio: ArtifactRef, *, reused: bool, served_name: str | None = None) -> Recording:
        name = self.label if self.named else served_name or self.label
        return Recording(
            audio=audio,
            name=name,
            stem=output_stem(name),
            duration=audio.meta["duration"],
            warnings=(*audio.meta.get("warnings", ()), *self._said_of_channels(audio)),
            reused=reused,
            track=audio.meta.get("track"),
            channels=tuple(_channels_of(audio)) if self.separates(audio) else (),
        )

    def separates(self, audio: ArtifactRef) -> bool:
        """Whether the channels of that recording are transcribed by themselves, as far as there are several."""
        carried = _carried_by(audio)
        if carried is None or self.channels == "mix":
            return False
        return carried.what == "voices" if self.channels == "auto" else carried.what != "one"

    def _said_of_channels(self, audio: ArtifactRef) -> tuple[str, ...]:
        """What was made of the channels, and why."""
        carried = _carried_by(audio)
        if self.separates(audio) and (channels := _channels_of(audio)):
            numbers = " and ".join(str(channel.meta["channel"]) for channel in channels)
            why = ", since each carries a voice of its own" if self.channels == "auto" else ""
            other = " Set `channels` to `mix` to transcribe them as one." if self.channels == "auto" else ""
            return (f"Channels {numbers} were transcribed separately, a speaker for each{why}.{other}",)
        if self.channels == "separate":
            count = "one channel" if carried is None else f"{carried.count} channels, of which one carries a sound of its own"
            return (f"The recording has {count}: there was nothing to separate.",)
        if carried is not None and carried.at_once and self.channels == "mix":
            return (
                "The two channels contain different speech at the same time and were mixed; "
                "set `channels` to `separate` to transcribe each by itself.",
            )
        return ()


def _carried_by(audio: ArtifactRef) -> Carried | None:
    """What the channels of a decoded recording carry; None for one channel, and where an earlier version decoded it."""
    carried = audio.meta.get("carried")
    return Carried.model_validate(carried, extra="ignore") if carried else None


def _channels_of(audio: ArtifactRef) -> list[ArtifactRef]:
    return [ArtifactRef.model_validate(channel) for channel in audio.meta.get("channels", ())]


def record_of(sha256: str, call: FetchCall) -> str:
    """The key under which is kept what bytes of that hash decode to."""
    return f"decoded-{sha256}-v{DECODER_VERSION}{'-truncated' if call.allow_truncated else ''}{f'-track-{call.track.lower()}' if call.track else ''}"


def known_audio(record: str, call: FetchCall) -> ArtifactRef | None:
    """The audio that these bytes gave before, if it is still there and may be used under today's cap."""
    store = get_store()
    content = store.read_record(record)
    try:
        ref = parsed(ArtifactRef, content) if content else None
    except ValueError:
        return None  # damaged; it is written anew
    if ref is None or ref.kind != "audio" or "duration" not in ref.meta or not store.holds(ref):
        return None
    if ref.meta.get("track") and not call.track and ref.meta.get("language") != call.language:
        return None  # of several tracks, another may be tagged with that language
    if call.channels != "mix" and not _channels_known(ref, call):
        return None
    if ref.meta["duration"] > call.longest:
        raise MediaTooLong(
            f"The recording lasts {ref.meta['duration']:.0f} s, above the limit of {call.longest:.0f} s ({_limit(call)})."
        )
    return ref


def _channels_known(audio: ArtifactRef, call: FetchCall) -> bool:
    """Whether its channels were compared, and are there as far as they are asked for."""
    if audio.meta.get("probe", {}).get("channels") == 1:
        return True
    if "channels" not in audio.meta:
        return not call.separates(audio) and "carried" in audio.meta
    return all(get_store().holds(channel) for channel in _channels_of(audio))


def decode(fetched: Fetched, folder: Path, call: FetchCall, report: ProgressSink) -> ArtifactRef:
    """The audio, in the store, with the record that leads to it. Raises MediaError and its kinds, StorageFull."""
    with engine_required(), limit_named(call):
        from speech.audio import normalise

        target = folder / "normalised.flac"
        info = normalise(
            fetched.path,
            target,
            max_duration=call.longest,
            allow_truncated=call.allow_truncated,
            track=call.track,
            language=call.language,
            channels=call.channels,
            name=call.label,
            progress=report,
        )
    meta: dict[str, Any] = {
        "duration": info.duration,
        "probe": info.probe.model_dump(mode="json"),
        "warnings": list(info.warnings),
    }
    if info.track is not None:
        meta |= {"track": info.track.model_dump(mode="json"), "language": call.language}
    record = record_of(fetched.sha256, call)
    if info.probe.channels > 1:
        meta["carried"] = info.carried.model_dump(mode="json") if info.carried is not None else None
    if info.channels or (call.channels == "separate" and info.probe.channels > 1):
        meta["channels"] = [
            get_store()
            .put(each.path, "audio", sha256=each.sha256, meta={"duration": each.duration, "channel": each.number}, by=record)
            .model_dump(mode="json")
            for each in info.channels
        ]
    audio = get_store().put(target, "audio", sha256=info.sha256, meta=meta, by=record)
    get_store().write_record(record, audio.model_dump_json().encode())
    return audio


@contextlib.contextmanager
def limit_named(call: FetchCall) -> Iterator[None]:
    """Say which limit a recording is too long for; the engine knows of no settings."""
    try:
        yield
    except MediaTooLong as error:
        what, _, cure = error.message.removesuffix(".").rpartition("; ")
        raise MediaTooLong(what, cure=f"{cure}, or raise {_limit(call)}") from None


def _limit(call: FetchCall) -> str:
    """What a recording's length is limited by."""
    return "STENO_LIMITS__MAX_DURATION" if call.longest != call.max_duration else "the limit of this run"


@contextlib.contextmanager
def no_space_translated() -> Iterator[None]:
    """A full disk, met while decoding, as our own error."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise StorageFull(
                "No space left for the recording", cure="free some, or set STENO_STORE and STENO_SCRATCH to another disk"
            ) from error
        raise
