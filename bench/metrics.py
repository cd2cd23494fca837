"""What a transcript is worth, measured against truth. Pure functions; the same normaliser for every system.

Word times are compared only for words that the edit distance pairs as equal, so that a wrong word is counted once, in the
word error rate. Speaker metrics map hypothesis to reference speakers one to one, whatever they are called.
"""

from __future__ import annotations

import re
import statistics
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

Activity = tuple[str, float, float]
"""(speaker, start, end) in seconds."""


@dataclass(frozen=True)
class Spoken:
    """A word with what is known of it; times in seconds."""

    word: str
    start: float | None = None
    end: float | None = None
    speaker: str | None = None


@dataclass(frozen=True)
class WordErrors:
    """Edit distance between two texts, in words."""

    substitutions: int
    deletions: int
    insertions: int
    reference_words: int

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per reference word. Words against an empty reference count as if it had one."""
        return self.errors / max(self.reference_words, 1)


@dataclass(frozen=True)
class DiarizationErrors:
    """Seconds of each kind of error; overlap counts for each speaker in it."""

    missed: float
    false_alarm: float
    confusion: float
    total: float

    @property
    def rate(self) -> float:
        """Error seconds per second of reference speech."""
        return (self.missed + self.false_alarm + self.confusion) / self.total if self.total else 0.0


@dataclass(frozen=True)
class TimeErrors:
    """How far word times are from truth, in seconds, over the `matched` words."""

    matched: int
    start_mae: float
    start_median: float
    start_bias: float
    """Mean of hypothesis minus reference: negative is early."""
    end_mae: float


# -- the normaliser -------------------------------------------------------------------------------------------------------

_CONTRACTIONS = (
    (r"\bwon't\b", "will not"),
    (r"\bcan't\b", "can not"),
    (r"\bcannot\b", "can not"),
    (r"n't\b", " not"),
    (r"'re\b", " are"),
    (r"'ve\b", " have"),
    (r"'ll\b", " will"),
    (r"'m\b", " am"),
    (r"\b(it|that|there|here|what)'s\b", r"\1 is"),
)
_SPELLINGS = {"ok": "okay", "mr": "mister", "mrs": "missus", "dr": "doctor"}
_NUMBERS = {
    "en": "zero one two three four five six seven eight nine ten",
    "fr": "zero un deux trois quatre cinq six sept huit neuf dix",
    "es": "cero uno dos tres cuatro cinco seis siete ocho nueve diez",
    "it": "zero uno due tre quattro cinque sei sette otto nove dieci",
    "ru": "ноль один два три четыре пять шесть семь восемь девять десять",
}


def normalise(text: str, language: str = "en") -> list[str]:
    """The words that are compared, in order.

    Case and accents are folded (the prompt texts are often typed without accents), punctuation is dropped, English
    contractions are spelled out, number words up to ten become digits, and four common abbreviations one spelling. In
    English other apostrophes join (`user's` → `users`), elsewhere it separates (`d'accord` → `d accord`). Nothing else is
    forgiven: compounds, longer numbers and misspellings in the truth count as errors, for every system alike.
    """
    folded = unicodedata.normalize("NFKD", text.casefold().replace("’", "'"))
    folded = "".join(character for character in folded if not unicodedata.combining(character))
    if language == "en":
        for pattern, replacement in _CONTRACTIONS:
            folded = re.sub(pattern, replacement, folded)
        folded = folded.replace("'", "")
    numbers = {word: str(value) for value, word in enumerate(_NUMBERS.get(language, "").split())}
    words = re.findall(r"\w+", folded.replace("_", " "))
    return [numbers.get(word, _SPELLINGS.get(word, word)) for word in words]


# -- words ----------------------------------------------------------------------------------------------------------------


def word_errors(reference: str, hypothesis: str, language: str = "en") -> WordErrors:
    """Word error counts after normalising both."""
    return _errors(normalise(reference, language), normalise(hypothesis, language))


def _errors(reference: Sequence[str], hypothesis: Sequence[str]) -> WordErrors:
    import jiwer

    if not reference or not hypothesis:
        return WordErrors(0, len(reference), len(hypothesis), len(reference))
    found = jiwer.process_words(" ".join(reference), " ".join(hypothesis))
    return WordErrors(found.substitutions, found.deletions, found.insertions, len(reference))


def speaker_attributed_errors(
    reference: Mapping[str, str], hypothesis: Mapping[str | None, str], language: str = "en"
) -> WordErrors:
    """cpWER: each speaker's words in one string, under the pairing of speakers with the fewest errors.

    Words without a speaker (`None`) are nobody's: they count as insertions, and their absence elsewhere as deletions.
    After Watanabe et al., "CHiME-6 Challenge", 2020; the assignment problem gives the same minimum as all permutations.
    """
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    spoken = [normalise(text, language) for text in reference.values()]
    heard = [normalise(text, language) for speaker, text in hypothesis.items() if speaker is not None]
    nobody = len(normalise(hypothesis.get(None, ""), language))
    size = max(len(spoken), len(heard))
    spoken += [[]] * (size - len(spoken))
    heard += [[]] * (size - len(heard))
    pairs = [[_errors(one, other) for other in heard] for one in spoken]
    rows, columns = linear_sum_assignment(np.array([[pair.errors for pair in row] for row in pairs]).reshape(size, size))
    best = [pairs[row][column] for row, column in zip(rows, columns, strict=True)]
    return WordErrors(
        sum(pair.substitutions for pair in best),
        sum(pair.deletions for pair in best),
        sum(pair.insertions for pair in best) + nobody,
        sum(len(words) for words in spoken),
    )


def texts_by_speaker(words: Iterable[Spoken]) -> dict[str | None, str]:
    """Each speaker's words in order, joined."""
    texts: dict[str | None, list[str]] = {}
    for word in words:
        texts.setdefault(word.speaker, []).append(word.word)
    return {speaker: " ".join(parts) for speaker, parts in texts.items()}


def time_errors(reference: Sequence[Spoken], hypothesis: Sequence[Spoken], language: str = "en") -> TimeErrors | None:
    """Word-time errors over words that match and have times on both sides; None when there is none."""
    pairs = [
        (true, heard)
        for true, heard in _matched(reference, hypothesis, language)
        if None not in (true.start, true.end, heard.start, heard.end)
    ]
    if not pairs:
        return None
    starts = [_known(heard.start) - _known(true.start) for true, heard in pairs]
    ends = [_known(heard.end) - _known(true.end) for true, heard in pairs]
    return TimeErrors(
        matched=len(pairs),
        start_mae=statistics.fmean(map(abs, starts)),
        start_median=statistics.median(map(abs, starts)),
        start_bias=statistics.fmean(starts),
        end_mae=statistics.fmean(map(abs, ends)),
    )


def _known(time: float | None) -> float:
    assert time is not None
    return time


def _matched(reference: Sequence[Spoken], hypothesis: Sequence[Spoken], language: str) -> Iterator[tuple[Spoken, Spoken]]:
    """Words of which all parts are paired as equal with the parts of one word ("I'm" has two parts)."""
    import jiwer

    true, heard = _parts(reference, language), _parts(hypothesis, language)
    if not true or not heard:
        return
    found = jiwer.process_words(" ".join(part for part, _ in true), " ".join(part for part, _ in heard))
    partners: dict[int, list[int]] = {}
    for chunk in found.alignments[0]:
        if chunk.type == "equal":
            for offset in range(chunk.ref_end_idx - chunk.ref_start_idx):
                index = true[chunk.ref_start_idx + offset][1]
                partners.setdefault(index, []).append(heard[chunk.hyp_start_idx + offset][1])
    sizes = [len(normalise(word.word, language)) for word in reference]
    for index, others in partners.items():
        if len(others) == sizes[index] and len(set(others)) == 1:
            yield reference[index], hypothesis[others[0]]


def _parts(words: Sequence[Spoken], language: str) -> list[tuple[str, int]]:
    return [(part, index) for index, word in enumerate(words) for part in normalise(word.word, language)]


def backwards(words: Sequence[Spoken]) -> int:
    """How many words end before they start, or start before the word before them that has a time."""
    count, before = 0, 0.0
    for word in words:
        if word.start is None:
            continue
        count += word.start < before - 1e-6 or (word.end is not None and word.end < word.start - 1e-6)
        before = word.start
    return count


def without_time(words: Iterable[Spoken]) -> int:
    return sum(word.start is None or word.end is None for word in words)


def without_speaker(words: Iterable[Spoken]) -> int:
    return sum(word.speaker is None for word in words)


# -- speakers -------------------------------------------------------------------------------------------------------------


def diarization_errors(reference: Iterable[Activity], hypothesis: Iterable[Activity], duration: float) -> DiarizationErrors:
    """DER's parts over the whole recording, overlap included, without a forgiveness collar (pyannote.metrics)."""
    from pyannote.core import Segment, Timeline
    from pyannote.metrics.diarization import DiarizationErrorRate

    metric = DiarizationErrorRate(collar=0.0, skip_overlap=False)
    parts = metric(_annotation(reference), _annotation(hypothesis), uem=Timeline([Segment(0, duration)]), detailed=True)
    return DiarizationErrors(
        missed=float(parts["missed detection"]),
        false_alarm=float(parts["false alarm"]),
        confusion=float(parts["confusion"]),
        total=float(parts["total"]),
    )


def _annotation(activity: Iterable[Activity]):  # type: ignore[no-untyped-def]
    from pyannote.core import Annotation, Segment

    annotation = Annotation()
    for track, (speaker, start, end) in enumerate(activity):
        if end > start:
            annotation[Segment(start, end), track] = speaker
    return annotation.support()
