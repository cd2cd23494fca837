"""Words that a channel has only because another one's voice bleeds into it: a microphone in the same room, a headset, a line.

Bleed is a quieter copy. How much quieter is measured for each pair of channels, where one is silent while the other speaks; what
a channel has at that level at that moment is explained by the other, and what is louder is its own.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from speech.audio import Recording
from stenoflow.types import Word

Decibels = npt.NDArray[np.float32]

FRAME = 0.02
"""Seconds."""
_ACTIVE = 30.0
"""dB below a channel's loud frames above which somebody speaks on it."""
_QUIETEST = -75.0
"""dBFS below which nobody does."""
_LOUDER = 3.0
"""dB by which a channel must be louder than another to bleed into it."""
_MARGIN = 6.0
"""dB around the usual level of bleed: rooms and codecs change it with the sound."""
_ECHO = 3
"""Frames by which bleed may come late: the way through a room, and its reverberation."""
_EXPLAINED = 0.6
"""Share of a word's frames that bleed must account for."""
_NEAR = 0.5
"""Seconds between the times of a word and of its copy, which are found separately."""
_ALIKE = 0.6
"""Likeness of two texts of the same words; bleed is often misheard."""


class Said(NamedTuple):
    """What was recognized on one channel."""

    words: Sequence[Word]
    levels: Decibels
    """(frames,) dBFS."""


def levels_of(recording: Recording) -> Decibels:
    """(frames,) dBFS of each FRAME."""
    size = round(FRAME * 16_000)
    parts = []
    for _, block in recording.blocks(500 * size, 500 * size):
        energy = (block.reshape(-1, size).astype(np.float64) ** 2).mean(axis=1)
        parts.append(10 * np.log10(energy + 1e-12))
    return np.concatenate(parts).astype(np.float32)[: -(-recording.samples // size)]


def own_words(said: Sequence[Said]) -> list[list[bool]]:
    """For each channel and each of its words, whether it was spoken there; False for those that bled into it from another."""
    frames = max((len(each.levels) for each in said), default=0)
    levels = [np.pad(each.levels, (0, frames - len(each.levels)), constant_values=-120) for each in said]
    own = [[True] * len(each.words) for each in said]
    for here, there in ((here, there) for here in range(len(said)) for there in range(len(said)) if here != there):
        explained = _explained(levels[here], levels[there])
        for index, word in enumerate(said[here].words):
            if own[here][index] and _bled(word, levels[here], levels[there], explained, said[there].words):
                own[here][index] = False
    return own


def _speaking(levels: Decibels) -> npt.NDArray[np.bool_]:
    heard = levels[levels > _QUIETEST]
    loud = float(np.percentile(heard, 95)) if len(heard) else 0.0
    return np.asarray(levels > max(_QUIETEST, loud - _ACTIVE))


def _explained(here: Decibels, there: Decibels) -> npt.NDArray[np.bool_]:
    """(frames,) whether what is on this channel is no louder than what usually bleeds into it from the other."""
    louder = _echoing(there)
    dominated = _speaking(there) & (there - here > 2 * _LOUDER)
    usual = float(np.median((here - there)[dominated])) if dominated.any() else -np.inf
    return np.asarray((here <= louder + min(usual + _MARGIN, -_LOUDER)) & _speaking(louder))


def _echoing(levels: Decibels) -> Decibels:
    """The loudest of each frame and the few before it."""
    padded = np.pad(levels, (_ECHO, 1), mode="edge")
    echoes = [padded[offset : offset + len(levels)] for offset in range(_ECHO + 2)]
    return np.asarray(np.max(echoes, axis=0), np.float32)


def _bled(word: Word, here: Decibels, there: Decibels, explained: npt.NDArray[np.bool_], others: Sequence[Word]) -> bool:
    """Whether the word is one of the other channel's."""
    part = slice(int(word.start / FRAME), max(int(word.end / FRAME), int(word.start / FRAME) + 1))
    if not len(here[part]):
        return False
    around = [other for other in others if other.start < word.end + _NEAR and other.end > word.start - _NEAR]
    if any(_alike(word.word, other.word) for other in around) and float(np.mean((there - here)[part])) > _LOUDER:
        return True
    spoken = any(other.start < word.end and other.end > word.start for other in around)
    return spoken and float(np.mean(explained[part])) >= _EXPLAINED


def _alike(one: str, other: str) -> bool:
    a, b = (_bare(text) for text in (one, other))
    return a == b or difflib.SequenceMatcher(None, a, b).ratio() >= _ALIKE


def _bare(word: str) -> str:
    return "".join(character for character in word.casefold() if character.isalnum())
