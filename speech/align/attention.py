"""Word times made good: cross-attention corrected by voice activity, and an order that never runs backwards.

Whisper's cross-attention runs ahead of or behind the voice by an amount that depends on the weights, and stretches words over
pauses. The segmentation knows when speech begins and ends to a frame or two, but not which word. Together they give both.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

from speech.registry import Resolved
from speech.schema import AsrResult, AsrSegment, Region, RuntimeOptions
from stenoflow.types import Timing, Word

if TYPE_CHECKING:
    from speech.audio import Recording

OFFSETS = {"base": -0.115, "tiny.en": 0.04}
"""Seconds by which a model's attention times are late (negative: early): the median over words inside a sentence, against the
durations Piper's voices were synthesised with (`bench.accuracy` prints word-time errors on the same kind of recording). The
same to 5 ms on three recordings for each model. Models not measured are taken as they are."""
MIN_WORD = 0.04
"""Seconds; the shortest time a word is given."""
MIN_PAUSE = 0.12
"""Seconds without voice that count as a pause between words, rather than the closure of a plosive."""
REACH = 0.4
"""Seconds; a word that begins this near to the end of a pause began there."""

LONG_PAUSE = 0.7
"""Seconds of silence that never follow a chunk's first word, unless it ends in punctuation: a sound before them is not a word."""
LEAST_PART = 0.2
"""Seconds of the stretch of voice in which a number's first part is said."""
_IN_PARTS = re.compile(r"\d[^\w\s]\d|\d{5}")
"""What may be said with pauses: "555-0123", "10,500", "90210"."""
MAX_STRETCH = 1.0
"""Seconds of voice that one word can be found to have taken from the next."""


class OwnTimes:
    """The times that the ASR model gave its words (`speech.align.Aligner`); no audio is read."""

    device = "cpu"

    def __init__(self, asr: AsrResult) -> None:
        self.asr = asr

    def words(self, segments: Sequence[AsrSegment], recording: Recording) -> Generator[list[Word], None, None]:
        yield from (own_times(self.asr, segment) for segment in segments)


def load(model: Resolved, asr: AsrResult, runtime: RuntimeOptions) -> OwnTimes:
    return OwnTimes(asr)


def own_times(asr: AsrResult, segment: AsrSegment) -> list[Word]:
    """The words of one of the recording's chunks."""
    return attention_words(segment, asr.model.name, asr.timing)


def attention_words(segment: AsrSegment, model: str, timing: Timing = "attention") -> list[Word]:
    """The chunk's words with the ASR model's times, corrected for the model and by where the voice begins and pauses."""
    return _corrected(segment, _voice(segment.regions), OFFSETS.get(model, 0.0), timing)


def _voice(regions: Sequence[Region]) -> list[Region]:
    """The regions with the gaps closed that are too short to be a pause."""
    closed: list[Region] = []
    for region in regions:
        if closed and region.start - closed[-1].end < MIN_PAUSE:
            closed[-1] = Region(start=closed[-1].start, end=region.end)
        else:
            closed.append(region)
    return closed


def _onsets(segment: AsrSegment, voice: Sequence[Region], shift: float) -> dict[int, float]:
    """For each stretch of voice, the word that begins it: index of the word → seconds at which the voice begins."""
    found: dict[int, float] = {}
    starts = [word.start - shift for word in segment.words]
    for region in voice:
        index = min(range(len(starts)), key=lambda i: abs(starts[i] - region.start), default=None)
        if index is not None and abs(starts[index] - region.start) <= REACH and index not in found:
            found[index] = region.start
    return found


def _corrected(segment: AsrSegment, voice: Sequence[Region], shift: float, source: Timing) -> list[Word]:
    onsets = _onsets(segment, voice, shift)
    words: list[Word] = []
    cut: Region | None = None
    for index, word in enumerate(segment.words):
        timing: Timing = source if word.end > word.start else "interpolated"
        start, end = word.start - shift, max(word.end - shift, word.start - shift)
        if cut is not None:
            # The word before was stretched over a pause; the voice after the pause is this word's.
            start = min([start, *(v.start for v in voice if v.start >= cut.end and start - v.start <= MAX_STRETCH)])
        start = onsets.get(index, start)
        home = _home(voice, start, end, index in onsets)
        if home is not None and _IN_PARTS.search(word.word):
            home = _around_pauses(voice, start, end, home)
        elif home is not None and index == 0 and (later := _after_noise(voice, end, home, word.word)) is not None:
            home, start = later, later.start
            onsets = {first: time for first, time in onsets.items() if time != later.start}
        cut = home if home is not None and end > home.end + MIN_PAUSE else None
        if home is not None:
            start, end = max(start, home.start), min(end, home.end)
        words.append(Word(word=word.word, start=max(0.0, start), end=max(0.0, end), score=word.score, timing=timing))
    return words


def _home(voice: Sequence[Region], start: float, end: float, begins: bool) -> Region | None:
    """The stretch of voice a word is said in, since none is said across a pause: the one it begins, or that holds most of it."""
    if begins:
        return next((region for region in voice if region.start <= start < region.end), None)
    best = max(voice, key=lambda region: min(end, region.end) - max(start, region.start), default=None)
    return best if best is not None and min(end, best.end) - max(start, best.start) >= MIN_WORD else None


def _around_pauses(voice: Sequence[Region], start: float, end: float, home: Region) -> Region:
    """From the first to the last of the stretches in which a number said with pauses is."""
    before = [v for v in voice if v.end <= home.start and v.end - max(start, v.start) >= LEAST_PART]
    # Attention also runs on into the next word's stretch.
    after = [v for v in voice if v.start >= home.end and 2 * (min(end, v.end) - v.start) >= v.end - v.start]
    parts = [*before, home, *after]
    return Region(start=parts[0].start, end=parts[-1].end)


def _after_noise(voice: Sequence[Region], end: float, home: Region, word: str) -> Region | None:
    """Where a chunk's first word is said that attention also finds in a sound long before it: such as music, that voice activity
    takes for voice. Attention begins a chunk's first word anywhere, but ends it where the next one begins."""
    last = next((v for v in reversed(voice) if end - v.start >= MIN_PAUSE), home)
    joined = not unicodedata.category(word[-1]).startswith("P")
    return last if joined and last.start - home.end > LONG_PAUSE else None


def in_order(words: Sequence[Word], floor: float, ceiling: float) -> list[Word]:
    """The same words with starts that never run backwards, from `floor` seconds on, each at least MIN_WORD long.

    Words whose time is taken by their neighbours (several start at once, or before the one ahead of them) share the run's
    span in proportion to their length in characters, and say that they were interpolated.
    """
    out: list[Word] = []
    i = 0
    while i < len(words):
        start = max(words[i].start, floor)
        j = i + 1
        while j < len(words) and words[j].start < start + MIN_WORD:
            j += 1
        least = start + MIN_WORD * (j - i)
        following = words[j].start if j < len(words) else max(ceiling, least)
        end = max(least, min(max(word.end for word in words[i:j]), following))
        out += _shared(words[i:j], start, end)
        floor = end
        i = j
    return out


def _shared(run: Sequence[Word], start: float, end: float) -> list[Word]:
    """One word takes the whole time; several share it by their length."""
    timing: Timing = run[0].timing if len(run) == 1 else "interpolated"
    total = sum(len(word.word) for word in run)
    placed: list[Word] = []
    done = 0
    for word in run:
        begin = start + (end - start) * done / total
        done += len(word.word)
        finish = start + (end - start) * done / total
        placed.append(word.model_copy(update={"start": round(begin, 3), "end": round(finish, 3), "timing": timing}))
    return placed
