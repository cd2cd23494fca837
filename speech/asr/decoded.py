"""What a decoder made of a chunk, and which of two attempts is the better one."""

from __future__ import annotations

import dataclasses
from collections import Counter

NO_SPEECH_LIMIT = 0.6
LOGPROB_LIMIT = -1.0
"""OpenAI Whisper's thresholds (`whisper/transcribe.py`); WhisperX accepts them and ignores them."""
PHRASE = 8
"""Characters that make a phrase, by which repetition is measured. OpenAI compares UTF-8 with its compressed length (2.4): good
prose in Tamil, Georgian or Burmese exceeds that."""
LOOPED = 0.2
"""Of a text's phrases: where more stand there for the third time or later, the text repeats itself. Prose has next to none."""
LEAST_LOOPED = 16
"""Phrases; "no, no, no, no, no" is no loop."""
PLAINER = 0.3
"""Mean log-probability that an attempt with fewer repetitions may lose and still be taken for what was said."""
STRICT_CHARACTERS = 20
"""Characters that a strict pass lets no text repeat."""
STRICTER = 4
"""How much shorter they are in the next strict pass, when a text is still in a loop."""
LEAST_NGRAM = 5
"""Tokens: so many characters in English."""


@dataclasses.dataclass(frozen=True)
class Decoded:
    tokens: list[int]
    text: str
    avg_logprob: float
    no_speech_prob: float
    cut_short: bool = False
    """Whether the decoder reached its limit of tokens, so that the rest of the chunk is missing."""
    hints: str = ""
    """What the decoder was given to expect: a loop may begin there."""

    @property
    def bare(self) -> str:
        """The text without spaces."""
        return "".join(self.text.split())

    @property
    def repetition(self) -> float:
        """The share of phrases that stand in the text for the third time or later."""
        looped, total = self._looped()
        return looped / total if total else 0.0

    @property
    def repetitive(self) -> bool:
        looped, total = self._looped()
        return looped >= LEAST_LOOPED and looped > LOOPED * total

    def _looped(self) -> tuple[int, int]:
        phrases, hinted = _phrases(self.bare), _phrases("".join(self.hints.split()))
        looped = sum(min(count, max(0, count + hinted[phrase] - 2)) for phrase, count in phrases.items())
        return looped, phrases.total()

    @property
    def strict_ngrams(self) -> list[int]:
        """Tokens of the shortest run that strict passes must not repeat: about as much text in every script at first, then less.

        Where a character takes three tokens, correct text repeats five tokens all the time."""
        length = STRICT_CHARACTERS * len(self.tokens) / max(1, len(self.bare))
        return sorted({max(LEAST_NGRAM, round(length / shorter)) for shorter in (1, STRICTER)}, reverse=True)

    @property
    def bytewise(self) -> bool:
        """Whether the tokens are pieces of characters, which any text repeats."""
        return len(self.tokens) > len(self.bare)

    @property
    def silent(self) -> bool:
        return not self.text.strip() or (self.no_speech_prob > NO_SPEECH_LIMIT and self.avg_logprob < LOGPROB_LIMIT)


def better(first: Decoded, strict: Decoded) -> Decoded:
    """What was said, of a text that repeats itself and what a strict pass made of it.

    A decoder in a loop is sure of itself, and seldom stops by itself. Somebody who repeats a sentence is understood worse when
    repeating is forbidden.
    """
    if strict.cut_short and not first.cut_short:
        return first
    if not strict.text.strip() or strict.repetition >= first.repetition:
        return first
    if first.cut_short or strict.avg_logprob >= first.avg_logprob - PLAINER:
        return strict
    return first


def _phrases(text: str) -> Counter[str]:
    return Counter(text[first : first + PHRASE] for first in range(len(text) - PHRASE + 1))
