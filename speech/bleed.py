"""Words that a channel has only because another one's voice bleeds into it: a microphone in the same room, a headset, a line.

Bleed is a quieter copy. How much quieter is measured for each pair of channels, where one is silent while the other speaks; what
a channel has at that level at that moment is explained by the other, and what is louder is its own.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from itertools import permutations
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
_EXPLAINED, _EXPLAINED_COPY = 0.85, 0.5
"""Share of a word's frames that bleed must account for; of one whose copy the other channel has. Times of own words reach into bleed."""
_NEAR = 0.5
"""Seconds between the times of a word and of its copy, which are found separately."""
_BESIDE = 0.3
"""Seconds to the next word of the same phrase."""
_ALIKE = 0.6
"""Likeness of two texts of the same word; bleed is often misheard."""
_LONG = 4
"""Letters from which two words that are not the same may be one misheard: `for` is no `or`."""


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
    copies: set[tuple[int, int]] = set()
    for share, here, there, index in sorted(_suspects(said, levels), reverse=True):
        word = said[here].words[index]
        near = [
            other
            for other, is_own in zip(said[there].words, own[there], strict=True)
            if is_own and other.start < word.end + _NEAR and other.end > word.start - _NEAR
        ]
        if any(_alike(word.word, other.word) for other in near):
            own[here][index] = False
            copies.add((here, index))
        elif share >= _EXPLAINED and any(other.start < word.end and other.end > word.start for other in near):
            own[here][index] = False
    for here, each in enumerate(said):
        alone = [
            index for index in range(len(each.words)) if (here, index) not in copies and _amid(index, each.words, own[here])
        ]
        for index in alone:
            own[here][index] = True
    return own


def _suspects(said: Sequence[Said], levels: Sequence[Decibels]) -> Iterator[tuple[float, int, int, int]]:
    """Words of which another channel's bleed explains something: how much, the channel, the other, and the word's index."""
    for here, there in permutations(range(len(said)), 2):
        explained = _explained(levels[here], levels[there])
        for index, word in enumerate(said[here].words):
            frames = explained[int(word.start / FRAME) : max(int(word.end / FRAME), int(word.start / FRAME) + 1)]
            share = float(np.mean(frames)) if len(frames) else 0.0
            if share >= _EXPLAINED_COPY:
                yield share, here, there, index


def _amid(index: int, words: Sequence[Word], own: Sequence[bool]) -> bool:
    """Whether the word stands next to own ones and to none that bled: it is misplaced in time rather than misheard bleed."""
    before = index > 0 and words[index].start - words[index - 1].end < _BESIDE
    after = index + 1 < len(words) and words[index + 1].start - words[index].end < _BESIDE
    beside = [own[index - 1]] * before + [own[(index + 1) % len(own)]] * after
    return bool(beside) and all(beside)


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


def _alike(one: str, other: str) -> bool:
    a, b = (_bare(text) for text in (one, other))
    return a == b or (min(len(a), len(b)) >= _LONG and difflib.SequenceMatcher(None, a, b).ratio() >= _ALIKE)


def _bare(word: str) -> str:
    return "".join(character for character in word.casefold() if character.isalnum())
