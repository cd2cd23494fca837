"""English numbers as digits: one model writes `21`, another `twenty one`, and both heard the same."""

from __future__ import annotations

from collections.abc import Sequence

_ONES = {
    word: value
    for value, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
        ]
    )
}
_TENS = {
    word: 10 * place
    for place, word in enumerate(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], start=2)
}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_ORDINALS = {
    "first": "1st",
    "second": "2nd",
    "third": "3rd",
    "fourth": "4th",
    "fifth": "5th",
    "sixth": "6th",
    "seventh": "7th",
    "eighth": "8th",
    "ninth": "9th",
    "tenth": "10th",
    "eleventh": "11th",
    "twelfth": "12th",
    "twentieth": "20th",
    "thirtieth": "30th",
}


def join_numbers(words: Sequence[str]) -> list[str]:
    """The words (lower case, without punctuation) with every cardinal number as one word of digits, and ordinals to the twelfth.

    `two hundred and five` → `205`, `5 million` → `5000000`, `nineteen ninety nine` → `1999`; digits said one by one stay
    apart.
    """
    joined: list[str] = []
    at = 0
    while at < len(words):
        value, length = _number(words, at)
        if length:
            following, more = _number(words, at + length)
            # A year: its two halves are said as numbers of two digits.
            if more and 13 <= value <= 20 and 10 <= following <= 99 and not words[at].isdigit():
                value, length = value * 100 + following, length + more
            joined.append(str(value))
        else:
            joined.append(_ORDINALS.get(words[at], words[at]))
        at += length or 1
    return joined


def _number(words: Sequence[str], start: int) -> tuple[int, int]:
    """The number that begins at `start` and how many words it takes; (0, 0) when none does."""
    total = 0
    group, length = _group(words, start)
    if not length:
        return 0, 0
    limit = 10**12
    at = start + length
    while at < len(words) and (scale := _SCALES.get(words[at], limit)) < limit and group:
        total, group, limit, at = total + group * scale, 0, scale, at + 1
        skip = int(at + 1 < len(words) and words[at] == "and")
        following, more = _group(words, at + skip)
        # `two thousand and five` is a number, `a thousand and one million` are two.
        if more and following < 1000 and not (skip and following >= 100) and not words[at + skip].isdigit():
            group, at = following, at + skip + more
    return total + group, at - start


def _group(words: Sequence[str], start: int) -> tuple[int, int]:
    """A number below a thousand (or `nineteen hundred`), and how many words it takes."""
    value, at = _below_hundred(words, start)
    if at == start:
        article = start + 1 < len(words) and words[start] in ("a", "an") and words[start + 1] in ("hundred", *_SCALES)
        if not article:
            return 0, 0
        value, at = 1, start + 1
    if at < len(words) and words[at] == "hundred" and 0 < value < 100:
        value, at = value * 100, at + 1
        skip = int(at < len(words) and words[at] == "and")
        rest, end = _below_hundred(words, at + skip)
        if end > at + skip and not words[at + skip].isdigit():
            value, at = value + rest, end
    return value, at - start


def _below_hundred(words: Sequence[str], at: int) -> tuple[int, int]:
    """A number of at most two spoken digits, or one that is written in digits before a scale; and where it ends."""
    if at >= len(words):
        return 0, at
    word = words[at]
    if word in _TENS:
        one = _ONES.get(words[at + 1], 0) if at + 1 < len(words) else 0
        return (_TENS[word] + one, at + 2) if 0 < one < 10 else (_TENS[word], at + 1)
    if word in _ONES:
        return _ONES[word], at + 1
    scaled = at + 1 < len(words) and words[at + 1] in ("hundred", *_SCALES)
    return (int(word), at + 1) if scaled and word.isascii() and word.isdigit() and len(word) <= 3 else (0, at)
