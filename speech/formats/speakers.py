"""What speakers are called in files that people read: by the names given, else `Speaker 1` for SPEAKER_00."""

from __future__ import annotations

import re

from speech.formats.options import RenderOptions
from stenoflow.errors import InvalidOption
from stenoflow.types import Transcript

_LABEL = re.compile(r"SPEAKER_(\d+)")


def given_names(text: str | None, speakers: tuple[str, ...]) -> dict[str, str]:
    """Label to name, as `RenderOptions.speaker_names` has them. Raises InvalidOption where both ways are mixed.

    Separated by semicolons if there are any (`Smith, Anna; Jones, Ben`), else by commas. An empty one leaves a speaker as it is.
    Names for more speakers than were found are left out.
    """
    parts = [part.strip() for part in re.split(";" if text and ";" in text else ",", text or "")]
    named = [part.partition("=") for part in parts if part]
    if not named:
        return {}
    if all(equals for _, equals, _ in named):
        return {label.strip(): name.strip() for label, _, name in named if label.strip() and name.strip()}
    if any(equals for _, equals, _ in named):
        raise InvalidOption(
            "speaker_names gives names either in order (`Anna, Ben`) or by label (`SPEAKER_00=Anna`), not both."
        )
    return {label: name for label, name in zip(speakers, parts, strict=False) if name}


def names(transcript: Transcript, options: RenderOptions) -> dict[str, str]:
    """Label to what is shown. WhisperX's layout shows labels, except where names were given."""
    given = chosen_names(transcript, options)
    labels = {*transcript.speakers, *(segment.speaker for segment in transcript.segments if segment.speaker is not None)}
    plain = {} if options.layout == "whisperx" else {label: _spoken(label) for label in labels}
    return plain | given


def chosen_names(transcript: Transcript, options: RenderOptions) -> dict[str, str]:
    """Label to name: of the enrolled voice, else as the request gave it, else as somebody corrected it, the last of these first."""
    recognised = {label: match.name for label, match in transcript.speaker_matches.items() if label in transcript.speakers}
    return recognised | given_names(options.speaker_names, transcript.speakers) | transcript.speaker_names


def with_names(transcript: Transcript, options: RenderOptions) -> Transcript:
    """The transcript with names in place of the labels of segments and turns."""
    shown = names(transcript, options)
    if not shown:
        return transcript
    return transcript.model_copy(
        update={
            "segments": tuple(
                segment.model_copy(update={"speaker": shown.get(segment.speaker, segment.speaker)})
                if segment.speaker is not None
                else segment
                for segment in transcript.segments
            ),
            "speakers": tuple(shown.get(label, label) for label in transcript.speakers),
        }
    )


def _spoken(label: str) -> str:
    numbered = _LABEL.fullmatch(label)
    return f"Speaker {int(numbered[1]) + 1}" if numbered else label
