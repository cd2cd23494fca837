"""The audio tracks of a recording, and which of them to transcribe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from speech.languages import LANGUAGES, language_of_tag, languages_of
from stenoflow.errors import NoSuchTrack

if TYPE_CHECKING:
    from av.audio.stream import AudioStream


class TrackRequest(NamedTuple):
    """What a request says of the track."""

    track: str | None = None
    """A number, from 1, or a language; None leaves the choice here."""
    language: str | None = None
    """The language that is transcribed, as Whisper's code, or several: a track that is tagged with one comes first."""


class Track(NamedTuple):
    """One audio track, as the container describes it."""

    number: int
    """Among the audio tracks, from 1."""
    language: str | None
    """Whisper's code, or the tag itself where Whisper does not know the language; None when it is not tagged."""
    title: str
    default: bool
    aside: bool
    """Commentary, or described for the blind."""
    decodable: bool

    def __str__(self) -> str:
        known = LANGUAGES.get(self.language or "", self.language or "").capitalize()
        details = [part for part in (known, f'"{self.title}"' if self.title else "") if part]
        return f"track {self.number} ({', '.join(details)})" if details else f"track {self.number}"


def _tag(stream: AudioStream, name: str) -> str:
    """What the container says, without what is not Unicode."""
    return str(stream.metadata.get(name, "")).encode(errors="ignore").decode()


def tracks_of(streams: Sequence[AudioStream]) -> list[Track]:
    """The audio tracks, in the container's order."""
    from av.stream import Disposition

    aside = Disposition.comment | Disposition.visual_impaired | Disposition.karaoke | Disposition.clean_effects
    return [
        Track(
            number=number,
            language=language_of_tag(_tag(stream, "language")),
            title=" ".join(_tag(stream, "title").split())[:60],
            default=bool(stream.disposition & Disposition.default),
            aside=bool(stream.disposition & aside),
            decodable=stream.codec_context is not None,
        )
        for number, stream in enumerate(streams, 1)
    ]


def ranked(tracks: Sequence[Track], asked: TrackRequest, name: str) -> list[Track]:
    """The tracks that may be taken, the first choice first. Raises NoSuchTrack."""
    if asked.track is None:
        languages = languages_of(asked.language)
        return sorted(
            tracks,
            key=lambda track: (
                not track.decodable,
                bool(languages) and track.language not in languages,
                track.aside,
                not track.default,
                track.number,
            ),
        )
    if asked.track.isdecimal():
        named = [track for track in tracks if track.number == int(asked.track)]
    else:
        wanted = language_of_tag(asked.track)
        named = ranked([track for track in tracks if track.language == wanted], TrackRequest(), name)
    if not named:
        there = "; ".join(str(track) for track in tracks)
        raise NoSuchTrack(f"{name} has no audio track {asked.track}; it has {there}.")
    return named
