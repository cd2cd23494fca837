"""Text at the border of two chunks: which of the words heard now were answered before, and which the end cuts."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from difflib import SequenceMatcher

from speech.languages import WITHOUT_SPACES
from speech.schema import AsrSegment, AsrWord, Region
from speech.session import SentWord
from stenoflow.types import Word

SAME_TIME = 1.0
"""Seconds by which the same word's time may differ between two hearings."""
AT_THE_END = 0.1
"""Seconds between the end of the voice and that of the audio within which a word is taken to be cut."""
LONGEST_CUT = 1.5
"""Seconds; what has lasted longer is not held back any more."""
PROMPT_WORDS = 40
"""Words of context before the audio, in the decoder's prompt."""
REPETITIVE = 2.0


def first_unanswered(said: Sequence[SentWord], heard: Sequence[Word], answered: float) -> int:
    """The index in `heard` of the first word that is not in `said`, where words were answered up to `answered` seconds.

    What follows the very last word that was said is new, also what was not heard the first time. Where the last words said are
    heard otherwise now, time decides: what lies mostly before the border was answered, in whatever words.
    """
    pair = _last_in_both(said, heard, answered)
    if pair and pair[0] == len(said) - 1:
        return pair[1] + 1
    following = pair[1] + 1 if pair else 0
    middles = [(word.start + word.end) / 2 for word in heard[following:]]
    return next((following + index for index, middle in enumerate(middles) if middle >= answered), len(heard))


def _last_in_both(said: Sequence[SentWord], heard: Sequence[Word], answered: float) -> tuple[int, int] | None:
    """The indices of the last word of `said` that is heard again, at about the same time."""
    matcher = SequenceMatcher(None, [_bare(word.word) for word in said], [_bare(word.word) for word in heard], autojunk=False)
    for block in reversed(matcher.get_matching_blocks()):
        for step in reversed(range(block.size)):
            before, now = said[block.a + step], heard[block.b + step]
            if abs(before.start - now.start) <= SAME_TIME and now.start <= answered + SAME_TIME / 2:
                return block.a + step, block.b + step
    return None


def _bare(word: str) -> str:
    """A word without case and punctuation, by which it is recognised."""
    return "".join(character for character in word.casefold() if character.isalnum()) or word


def is_cut(word: Word, regions: Sequence[Region], end: float) -> bool:
    """Whether the audio ends, at `end` seconds, before its last word does."""
    voiced = bool(regions) and regions[-1].end >= end - AT_THE_END
    return voiced and word.end >= end - LONGEST_CUT and word.start >= end - LONGEST_CUT and word.end > regions[-1].start


def decoder_prompt(hint: str | None, said: Sequence[SentWord], before: float, language: str) -> str | None:
    """The decoder's prompt: the caller's hint, and the words before the audio.

    Not those in it, which it would leave out; nor a text that repeats itself, which it would go on with.
    """
    words = [word.word for word in said if word.end <= before][-PROMPT_WORDS:]
    text = ("" if language in WITHOUT_SPACES else " ").join(words)
    data = text.encode()
    if data and len(data) / len(zlib.compress(data)) > REPETITIVE:
        text = ""
    return " ".join(part for part in (hint, text) if part) or None


def shifted(part: AsrSegment, by: float) -> AsrSegment:
    """The stretch of text with its times moved by so many seconds."""
    return part.model_copy(
        update={
            "start": part.start + by,
            "end": part.end + by,
            "words": tuple(AsrWord(**vars(word) | {"start": word.start + by, "end": word.end + by}) for word in part.words),
            "regions": tuple(Region(start=region.start + by, end=region.end + by) for region in part.regions),
        }
    )
