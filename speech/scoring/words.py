"""Word errors: of the whole text, and of each speaker's words apart."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from speech.scoring.normaliser import normalise
from speech.scoring.types import Spoken, WordErrors

COLLAR = 5.0
"""Seconds that a word may be off in tcpWER, as CHiME-7 and CHiME-8 have it."""
_PAUSE = 0.5
"""Seconds without a word that end a phrase."""

Normaliser = Callable[[str, str], list[str]]


def word_errors(reference: str, hypothesis: str, language: str = "en", normaliser: Normaliser = normalise) -> WordErrors:
    """Word error counts (WER is their `rate`) after normalising both texts.

    Levenshtein, "Binary codes capable of correcting deletions, insertions and reversals", 1966, over words.
    """
    return errors_between(normaliser(reference, language), normaliser(hypothesis, language))


def errors_between(reference: Sequence[str], hypothesis: Sequence[str]) -> WordErrors:
    """Word error counts of words that are normalised already."""
    from rapidfuzz.distance import Levenshtein

    kinds = [step.tag for step in Levenshtein.editops(reference, hypothesis)]
    return WordErrors(
        substitutions=kinds.count("replace"),
        deletions=kinds.count("delete"),
        insertions=kinds.count("insert"),
        reference_words=len(reference),
    )


def speaker_attributed_errors(
    reference: Mapping[str, str], hypothesis: Mapping[str | None, str], language: str = "en"
) -> WordErrors:
    """cpWER: each speaker's words in one string, under the pairing of speakers with the fewest errors.

    Words without a speaker (`None`) count as insertions, and their absence elsewhere as deletions.
    After Watanabe et al., "CHiME-6 Challenge", 2020; the assignment problem gives the same minimum as all permutations.
    """
    import numpy as np
    from rapidfuzz.distance import Levenshtein
    from scipy.optimize import linear_sum_assignment

    spoken = [normalise(text, language) for text in reference.values()]
    heard = [normalise(text, language) for speaker, text in hypothesis.items() if speaker is not None]
    nobody = len(normalise(hypothesis.get(None, ""), language))
    size = max(len(spoken), len(heard))
    spoken += [[]] * (size - len(spoken))
    heard += [[]] * (size - len(heard))
    errors = np.array([[Levenshtein.distance(one, other) for other in heard] for one in spoken]).reshape(size, size)
    rows, columns = linear_sum_assignment(errors)
    best = WordErrors.pooled(errors_between(spoken[row], heard[column]) for row, column in zip(rows, columns, strict=True))
    return best.model_copy(update={"insertions": best.insertions + nobody})


def time_constrained_errors(
    reference: Iterable[Spoken], hypothesis: Iterable[Spoken], language: str = "en"
) -> WordErrors | None:
    """tcpWER with meeteval: cpWER in which words pair only where their times are within COLLAR of each other.

    A word's time is estimated within its utterance or phrase. None without meeteval (the extra `tcpwer`), and where an
    utterance has no speaker or no times. Words without a speaker or time are insertions, as in cpWER.
    After von Neumann et al., "MeetEval", 2023.
    """
    said, heard = list(reference), list(_phrases(hypothesis))
    try:
        from meeteval.wer import time_constrained_minimum_permutation_word_error_rate
    except ImportError:
        return None
    if not all(map(_is_attributed, said)):
        return None

    def segments(parts: Iterable[Spoken]) -> list[dict[str, Any]]:
        return [
            {
                "speaker": one.speaker,
                "start_time": one.start,
                "end_time": one.end,
                "words": " ".join(normalise(one.word, language)),
            }
            for one in parts
            if _is_attributed(one)
        ]

    logging.getLogger("preprocess").setLevel(logging.ERROR)  # it takes long phrases for times that are no seconds
    found = time_constrained_minimum_permutation_word_error_rate(segments(said), segments(heard), collar=COLLAR)
    nobody = sum(len(normalise(one.word, language)) for one in heard if not _is_attributed(one))
    return WordErrors(
        substitutions=found.substitutions,
        deletions=found.deletions,
        insertions=found.insertions + nobody,
        reference_words=found.length,
    )


def _is_attributed(part: Spoken) -> bool:
    return None not in (part.speaker, part.start, part.end)


def _phrases(words: Iterable[Spoken]) -> Iterator[Spoken]:
    """The words joined as far as one speaker goes on without a stop or pause; numbers are normalised as a whole then."""
    phrase: Spoken | None = None
    for word in words:
        if (
            phrase is not None
            and phrase.speaker == word.speaker
            and not phrase.word.endswith((".", "?", "!"))
            and phrase.end is not None
            and word.start is not None
            and 0 <= word.start - phrase.end <= _PAUSE
        ):
            phrase = Spoken(f"{phrase.word} {word.word}", phrase.start, word.end, phrase.speaker)
        else:
            if phrase is not None:
                yield phrase
            phrase = word
    if phrase is not None:
        yield phrase


def texts_by_speaker(words: Iterable[Spoken]) -> dict[str | None, str]:
    """Each speaker's words in order, joined."""
    texts: dict[str | None, list[str]] = {}
    for word in words:
        texts.setdefault(word.speaker, []).append(word.word)
    return {speaker: " ".join(parts) for speaker, parts in texts.items()}
