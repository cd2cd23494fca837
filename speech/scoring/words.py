"""Word errors: of the whole text, and of each speaker's words apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from speech.scoring.normaliser import normalise
from speech.scoring.types import Spoken, WordErrors


def word_errors(reference: str, hypothesis: str, language: str = "en") -> WordErrors:
    """Word error counts (WER is their `rate`) after normalising both texts.

    Levenshtein, "Binary codes capable of correcting deletions, insertions and reversals", 1966, over words.
    """
    return errors_between(normalise(reference, language), normalise(hypothesis, language))


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

    Words without a speaker (`None`) are nobody's: they count as insertions, and their absence elsewhere as deletions.
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


def texts_by_speaker(words: Iterable[Spoken]) -> dict[str | None, str]:
    """Each speaker's words in order, joined."""
    texts: dict[str | None, list[str]] = {}
    for word in words:
        texts.setdefault(word.speaker, []).append(word.word)
    return {speaker: " ".join(parts) for speaker, parts in texts.items()}
