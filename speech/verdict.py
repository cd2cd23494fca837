"""What is said of a decoded recording: refused where it is empty, cut or broken, else a sentence for each thing worth knowing."""

from __future__ import annotations

from collections.abc import Sequence

from speech.clock import GAP
from speech.decode import Tally, spell
from speech.mixdown import Mixer
from speech.probe import Media, capitalised
from speech.schema import ChosenTrack
from speech.tracks import Track
from stenoflow.errors import CorruptMedia, EmptyMedia, TruncatedMedia

_LOSS = 0.05
"""The part of a recording that may fail to decode, with a warning, before it is refused."""
_NOTABLE = 0.05
"""Seconds by which words may be off without a word."""


def judge(media: Media, tally: Tally, mixer: Mixer, allow_truncated: bool, name: str) -> list[str]:
    """Refuse what is empty, cut or broken; otherwise say what the user should know, a sentence each."""
    if not tally.samples:
        if tally.failed:
            raise CorruptMedia(f"{capitalised(name)} is damaged: none of its audio could be decoded; copy or export it again.")
        raise EmptyMedia(f"{capitalised(name)} has an audio track without samples; give a file with sound.")
    warnings = []
    if media.repair is not None:
        left_out = media.repair.left_out * tally.position
        warnings.append(
            f"The header of the recording is wrong: it omits {spell(left_out)} of {spell(tally.position)}. Everything was transcribed."
        )
    missing = _missing_seconds(media, tally)
    lost = tally.lost_seconds
    if missing and _is_cut(media, tally):
        sentence = f"ends early: {spell(tally.position)} of {spell(tally.position + missing)} exist"
        if not allow_truncated:
            raise TruncatedMedia(
                f"{capitalised(name)} {sentence}",
                cure="copy it again, or allow truncated recordings to transcribe the part that exists",
            )
        warnings.append(f"The recording {sentence}.")
    elif missing and media.demuxer in ("mp3", "flac") and _lacks_bytes(media, tally):
        lost = max(lost, missing)
    elif missing:
        warnings.append(
            f"The recording declares {spell(tally.position + missing)} of audio but contains {spell(tally.position)}."
        )
    elif media.promise.unended:
        warnings.append(f"The recording stops without an end marker after {spell(tally.position)}; it may be truncated.")
    whole = tally.position + missing + tally.unread_seconds
    if lost > _LOSS * whole:
        raise CorruptMedia(
            f"{capitalised(name)} is damaged: about {spell(lost)} of {spell(whole)} could not be decoded; copy or export it again."
        )
    if lost > 0 or tally.failed > tally.failed_at_end:
        warnings.append(f"The recording is damaged: about {max(lost, 0.1):.1f} s could not be decoded.")
    undamaged = tally.gap_seconds - tally.damaged_seconds
    if undamaged > GAP:
        warnings.append(
            f"The recording has gaps of {spell(undamaged)} in {tally.gaps} place(s), which were filled with silence."
        )
    return [*warnings, *_clock_warnings(tally), *_sound_warnings(mixer)]


def _clock_warnings(tally: Tally) -> list[str]:
    """Where words may be elsewhere than a player shows them, or had to be moved to be there."""
    warnings = []
    if abs(tally.begins) > _NOTABLE:
        warnings.append(
            f"The timestamps of the recording start at {spell(tally.begins)}; times are relative to that, which not all players do."
        )
    if tally.resets:
        places = ", ".join(spell(place) for place in tally.resets[:5]) + (", …" if len(tally.resets) > 5 else "")
        warnings.append(
            f"The timestamps of the recording are reset at {places}; later times continue the count, and may differ from a player's."
        )
    if tally.stretched > _NOTABLE or tally.astray > _NOTABLE:
        off = f", and words may be off by {tally.astray:.1f} s in places" if tally.astray > GAP else ""
        warnings.append(
            f"The timestamps of the recording differ from its samples by {spell(tally.stretched)} in total; the audio was stretched to match{off}."
        )
    return warnings


def several_tracks(media: Media, taken: Track, silent: Sequence[Track], unusable: Sequence[Track]) -> str:
    """Which track was transcribed, and why."""
    reasons = [
        *(f"{track} is silent" for track in silent),
        *(f"{track} cannot be decoded" for track in unusable),
        *(f"{track} uses a codec that is not known here" for track in media.tracks if not track.decodable),
    ]
    why = f": {', '.join(reasons)}" if reasons else ""
    return f"The recording has {media.track_count} audio tracks; {taken} was transcribed{why}. Choose another with `track`."


def chosen(media: Media, taken: Track) -> ChosenTrack:
    return ChosenTrack(number=taken.number, of=media.track_count, language=taken.language, title=taken.title or None)


def _sound_warnings(mixer: Mixer) -> list[str]:
    warnings = []
    if mixer.nonfinite:
        warnings.append(f"{mixer.nonfinite} samples of the recording were NaN or infinite and were replaced with silence.")
    if mixer.clipped_share > 0.01:
        warnings.append(f"The recording is clipped: {100 * mixer.clipped_share:.0f} % of its samples are at full scale.")
    return warnings


def _missing_seconds(media: Media, tally: Tally) -> float:
    """Seconds the container promises beyond what decoded; 0 when within max(0.5 s, 1 %)."""
    promise = media.promise
    promised = media.exact_duration
    if media.demuxer in ("wav", "w64", "aiff", "au", "caf") or (promised is None and promise.cut):
        declared = media.container.duration
        if media.demuxer in ("matroska", "asf") and declared:
            promised = declared / 1e6
        else:
            promised = tally.position * promise.claimed / promise.held if promise.claimed else None
    missing = (promised or 0.0) - tally.position
    return missing if missing > max(0.5, 0.01 * (promised or 0.0)) else 0.0


def _lacks_bytes(media: Media, tally: Tally) -> bool:
    """Whether bytes of the file were of no use, so that sound is missing rather than counted wrongly."""
    return tally.failed > 0 or tally.packet_bytes < (1 - _LOSS / 5) * media.promise.held - 16384


def _is_cut(media: Media, tally: Tally) -> bool:
    """Whether what is missing is missing at the end of the file, rather than broken inside it."""
    if media.promise.claimed is not None:
        return media.promise.cut
    return media.demuxer in ("flac", "mp3", "tta", "wv") and tally.failed == tally.failed_at_end and not tally.damaged_seconds
