"""Which words share a subtitle, by the rules that broadcasters publish: lines that can be read in the time they are shown.

The rules are those on which Netflix's Timed Text Style Guide and the BBC's Subtitle Guidelines agree: two lines of at most
42 characters (16 wide ones in Chinese, Japanese and Korean), from one second to seven, at most 20 characters a second, two
frames between subtitles, breaks at the ends of sentences and clauses and never after an article or a preposition where another
place will do. Of all ways to cut what a speaker says, the one with the lowest cost is taken (dynamic programming over words);
what two speakers say too briefly for a subtitle each stands in one, a line for each.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise, takewhile
from typing import NamedTuple

from speech.formats.cues import Cue, Token, highlights, in_sequence, milliseconds, tokens_of
from speech.formats.lines import one_line
from speech.formats.options import RenderOptions
from speech.languages import language_of_text
from stenoflow.types import Transcript

WIDTH, WIDE_WIDTH, LINES = 42, 32, 2
"""Columns per line; of scripts whose characters take two each; and lines."""
SHORTEST, LONGEST = 1.0, 7.0
"""Seconds that a subtitle is shown."""
SPEED = 20.0
"""Columns per second."""
GAP = 0.084
"""Seconds between subtitles: two frames of 24 a second."""
LINGER = 0.5
"""Seconds that a subtitle stays after the last word where nothing follows; where the next begins sooner, it stays until then."""
PAUSE = 2.0
"""Seconds of silence that end a subtitle."""

_WIDE = frozenset({"zh", "yue", "ja", "ko"})
_RIGHT_TO_LEFT = frozenset({"ar", "fa", "he", "ps", "sd", "ug", "ur", "yi"})
_MARK = "\u200f"
"""Right-to-left mark. Around a line it keeps its punctuation on the right side of it, whatever the player believes."""
_CLAUSE = re.compile(r"[,;:…\-–—،؛、，；：.!?][\"'”’»)]*$")
BINDING: dict[str, frozenset[str]] = {
    language: frozenset(words.split())
    for language, words in {
        "en": "a an the of to in on at by for with from into as and or but if that than my your his her its our their this these"
        " those very no not is are was were be been i you he she we they it mr. mrs. ms. dr. would will can could i'm",
        "de": "der die das den dem des ein eine einen einem einer eines in im an am auf zu zum zur von vom mit bei für aus und oder"
        " aber dass wenn mein dein sein ihr unser kein keine nicht ich du er sie wir es",
        "fr": "le la les un une des du de à au aux en dans sur par pour avec et ou mais que qui ce cet cette ces mon ma mes ton ta"
        " son sa ses notre votre leur ne je tu il elle nous vous ils on",
        "es": "el la los las un una unos unas de del a al en con por para y o pero que mi tu su sus este esta no yo se lo",
        "it": "il lo la i gli le un uno una di del della dei a al alla in nel nella con su per e o ma che mio tuo suo non si",
        "pt": "o a os as um uma de do da dos das em no na nos nas com por para e ou mas que meu minha seu sua não se",
        "nl": "de het een van in op aan bij met voor uit naar en of maar dat die mijn jouw zijn haar ons geen niet ik je hij ze we",
    }.items()
}
"""Words that belong to the next: no line ends with one where another place will do."""


class _Cut(NamedTuple):
    cost: float
    begin: int
    """First token of the subtitle that ends here."""
    middle: int
    """First token of its second line; 0 where it has one."""


def cues(transcript: Transcript, options: RenderOptions) -> list[Cue]:
    """The subtitles in order, at least a millisecond long each; none overlaps the next."""
    language = language_of_text(transcript)
    width = options.max_line_width or (WIDE_WIDTH if language in _WIDE else WIDTH)
    tokens = _as_spoken([tokens_of(segment, language_of_text(transcript, segment)) for segment in transcript.segments])
    found: list[Cue] = []
    speaker: str | None = None
    for run, following in pairwise([*_runs(tokens), []]):
        named = [run[0]._replace(lead="", label=_label(run[0].speaker, speaker)), *run[1:]]
        speaker = run[0].speaker
        until = following[0].start if following else max(transcript.duration, run[-1].end + SHORTEST)
        found += _Run(named, until, width, options.max_line_count or LINES).cues()
    found = in_sequence(
        _lasting(_dialogues(found, width) if (options.max_line_count or LINES) > 1 else found, transcript.duration)
    )
    if options.highlight_words:
        found = in_sequence([part for cue in found for part in _highlighted(cue)])
    return [_marked(cue) if cue.tokens[0].language in _RIGHT_TO_LEFT else cue for cue in found]


def _as_spoken(segments: list[list[Token]]) -> list[Token]:
    """The words of all segments. One in which another speaker's begins, as on another channel, goes on after it."""
    segments = [tokens for tokens in segments if tokens]
    pieces: list[list[Token]] = []
    for index, tokens in enumerate(segments):
        begun = takewhile(lambda other, last=tokens[-1].start: other[0].start <= last, segments[index + 1 :])  # type: ignore[misc]
        starts = [other[0].start for other in begun if other[0].speaker != tokens[0].speaker]
        cuts = sorted({bisect_right(tokens, start, key=lambda token: token.start) for start in starts} - {0, len(tokens)})
        pieces += [tokens[begin:end] for begin, end in pairwise([0, *cuts, len(tokens)])]
    if len(pieces) > len(segments):
        pieces.sort(key=lambda piece: piece[0].start)
    return [token for piece in pieces for token in piece]


def columns(text: str) -> int:
    """How wide it is: Chinese, Japanese and Korean characters take two columns, marks none."""
    return len(text) if text.isascii() else sum(map(_columns, text))


@lru_cache(maxsize=4096)
def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _runs(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """What a speaker says in one language without a long pause."""
    run: list[Token] = []
    for token in tokens:
        same = run and (token.speaker, token.language) == (run[-1].speaker, run[-1].language)
        if run and (not same or token.start - run[-1].end > PAUSE):
            yield run
            run = []
        run.append(token)
    if run:
        yield run


def _label(speaker: str | None, before: str | None) -> str:
    return f"{one_line(speaker)}: " if speaker is not None and speaker != before else ""


class _Run:
    """The best way to cut a run of one speaker's words into subtitles."""

    def __init__(self, tokens: list[Token], until: float, width: int, lines: int) -> None:
        self.tokens, self.until, self.width, self.lines = tokens, until, width, lines
        binding = BINDING.get(tokens[0].language, frozenset())
        self.breaks = [_break_cost(token, after, binding) for token, after in pairwise(tokens)] + [0.0]
        """What it costs to end a line or a subtitle after each token."""
        self.before = [0]
        """Columns of all that stands before each token."""
        for token in tokens:
            self.before.append(self.before[-1] + len(token.lead) + columns(token.label) + columns(token.text))

    def cues(self) -> list[Cue]:
        best = [_Cut(0.0, 0, 0)]
        for end in range(1, len(self.tokens) + 1):
            best.append(min(self._cuts(best, end), key=lambda cut: cut.cost))
        found: list[Cue] = []
        end = len(self.tokens)
        while end:
            found.append(self._cue(best[end], end))
            end = best[end].begin
        return found[::-1]

    def _cuts(self, best: list[_Cut], end: int) -> Iterator[_Cut]:
        """Every subtitle that may end before token `end`, with the cost of all up to there."""
        for begin in range(end - 1, -1, -1):
            middle, shape = self._shape(begin, end)
            if begin < end - 1 and shape is None:
                return
            yield _Cut(best[begin].cost + self._cost(begin, end) + (shape or 0.0), begin, middle)
            if begin and self.tokens[end - 1].end - self.tokens[begin - 1].start > 2 * LONGEST:
                return

    def _shape(self, begin: int, end: int) -> tuple[int, float | None]:
        """Where the second line begins, and what that costs; None where it does not fit."""
        whole = self._columns(begin, end)
        if whole <= self.width:
            return 0, 0.0
        if self.lines < 2 or whole > self.lines * self.width:
            return 0, None
        if self.lines > 2:
            return self._filled(begin, end)
        found: tuple[int, float | None] = (0, None)
        for middle in range(end - 1, begin, -1):
            below = self._columns(middle, end)
            if below > self.width:
                break
            above = self._columns(begin, middle)
            if above > self.width:
                continue
            cost = 1.0 + self.breaks[middle - 1] / 2 + 4 * abs(above - below) / self.width
            if found[1] is None or cost < found[1]:
                found = middle, cost
        return found

    def _filled(self, begin: int, end: int) -> tuple[int, float | None]:
        """More than two lines are filled one after another."""
        return 0, float(self.lines) if len(self._lines(begin, end)) <= self.lines else None

    def _lines(self, begin: int, end: int) -> list[int]:
        starts = [begin]
        for index in range(begin + 1, end):
            if self._columns(starts[-1], index + 1) > self.width:
                starts.append(index)
        return starts

    def _columns(self, begin: int, end: int) -> int:
        return self.before[end] - self.before[begin] - len(self.tokens[begin].lead)

    def _cost(self, begin: int, end: int) -> float:
        first, last = self.tokens[begin], self.tokens[end - 1]
        spoken = last.end - first.start
        until = self.tokens[end].start if end < len(self.tokens) else self.until
        most = max(until - GAP - first.start, 0.0)
        cost = 6.0 + self.breaks[end - 1]
        cost += 40 * max(SHORTEST - most, 0.0)
        if most > 0.0:
            cost += 2 * min(max((self._columns(begin, end) - columns(first.label)) / most - SPEED, 0.0), 10.0)
        cost += 100 * max(spoken - LONGEST, 0.0)
        cost += 8 * sum(token.ends_segment for token in self.tokens[begin : end - 1])
        if end - begin == 1 and len(self.tokens) > 1 and not last.ends_segment:
            cost += 15.0
        return cost

    def _cue(self, cut: _Cut, end: int) -> Cue:
        tokens = list(self.tokens[cut.begin : end])
        tokens[0] = tokens[0]._replace(lead="")
        starts = [cut.middle] if cut.middle else self._lines(cut.begin, end)[1:] if self.lines > 2 else []
        for start in starts:
            tokens[start - cut.begin] = tokens[start - cut.begin]._replace(lead="\n")
        return Cue(milliseconds(tokens[0].start), milliseconds(tokens[-1].end), tuple(tokens))


def _break_cost(token: Token, after: Token, binding: frozenset[str]) -> float:
    if token.ends_segment:
        return 0.0
    pause = after.start - token.end if token.timed else 0.0
    if _CLAUSE.search(token.text) or pause >= 0.4:
        return 3.0
    return 25.0 if token.text.lower() in binding else 10.0


def _dialogues(found: list[Cue], width: int) -> list[Cue]:
    """Neighbours of two speakers in one subtitle, a line each, where one of them is too brief by itself."""
    joined: list[Cue] = []
    index = 0
    while index < len(found):
        pair = found[index : index + 2]
        after = found[index + 2].start if index + 2 < len(found) else None
        if len(pair) == 2 and (both := _dialogue(pair[0], pair[1], after, width)) is not None:
            joined.append(both)
            index += 2
        else:
            joined.append(pair[0])
            index += 1
    return joined


def _dialogue(one: Cue, other: Cue, after: int | None, width: int) -> Cue | None:
    first, second = one.tokens[0], other.tokens[0]
    brief = _too_brief(one, other.start) or (after is not None and _too_brief(other, after))
    if not brief or first.speaker == second.speaker or first.speaker is None or second.speaker is None:
        return None
    fits = all(columns(f"- {cue.text()}") <= width and "\n" not in cue.text() for cue in (one, other))
    if not fits or other.end - one.start > LONGEST * 1000 or other.start - one.end > 1000:
        return None
    lines = (
        (first._replace(label=f"- {first.label}"), *one.tokens[1:]),
        (second._replace(label=f"- {second.label}", lead="\n"), *other.tokens[1:]),
    )
    return Cue(one.start, max(one.end, other.end), lines[0] + lines[1])


def _too_brief(cue: Cue, until: int) -> bool:
    room = (until - cue.start) / 1000 - GAP
    return room < SHORTEST or _read(cue) > SPEED * room


def _read(cue: Cue) -> int:
    """Columns that are to be read: who speaks is seen at a glance."""
    return columns(cue.text()) - sum(columns(token.label) for token in cue.tokens)


def _lasting(found: list[Cue], duration: float) -> list[Cue]:
    """Each shown as long as it takes to read, and no longer than to two frames before the next."""
    gap, end = milliseconds(GAP), milliseconds(duration)
    lasting: list[Cue] = []
    for cue, after in pairwise([*found, None]):
        assert cue is not None
        wanted = max(cue.end, cue.start + milliseconds(max(SHORTEST, _read(cue) / SPEED)))
        wanted = max(wanted, min(cue.end + milliseconds(LINGER), max(end, cue.end)))
        wanted = min(wanted, max(cue.start + milliseconds(LONGEST), cue.end))
        if after is not None and (wanted > after.start - gap or after.start - wanted < milliseconds(LINGER)):
            wanted = min(after.start - gap, max(cue.start + milliseconds(LONGEST), cue.end))
        lasting.append(cue._replace(end=max(wanted, cue.start + 1)))
    return lasting


def _highlighted(cue: Cue) -> list[Cue]:
    parts = highlights(cue)
    rest = cue._replace(start=parts[-1].end)
    return [*parts, rest] if rest.end > rest.start else parts


def _marked(cue: Cue) -> Cue:
    tokens = list(cue.tokens)
    for index in range(len(tokens)):
        if index == 0 or tokens[index].lead == "\n":
            tokens[index] = tokens[index]._replace(label=_MARK + tokens[index].label)
        if index + 1 == len(tokens) or tokens[index + 1].lead == "\n":
            tokens[index] = tokens[index]._replace(text=tokens[index].text + _MARK)
    return cue._replace(tokens=tuple(tokens))
