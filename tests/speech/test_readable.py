"""Files that people read: subtitles by broadcasters' rules, paragraphs, documents, a page, and what speakers are called in them."""

from __future__ import annotations

import csv
import io
import random
import re
import zipfile
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import pytest

from bench.subtitles import read_srt
from speech.formats import RenderOptions, render, render_text
from speech.formats.broadcast import BINDING, GAP, LONGEST, SHORTEST, SPEED, columns
from stenoflow.errors import InvalidOption
from stenoflow.types import Segment, Stretch, Transcript
from tests.speech.test_formats import TALK, hostile, segment, transcript

LONG = (
    "The committee met on Thursday, and after a long discussion of the budget for the coming year it was decided to ask the members "
    "for their opinion of the plan, which had been written in the spring of the year before by people who have since left the house."
)


def lines_of(value: Transcript, **options: Any) -> list[str]:
    return [line for cue in read_srt(render_text(value, "srt", RenderOptions(**options))) for line in cue.lines]


# -- subtitles ------------------------------------------------------------------------------------------------------------


def test_a_long_sentence_becomes_subtitles_that_can_be_read() -> None:
    value = transcript(segment(1.0, 19.0, LONG))
    shown = read_srt(render_text(value, "srt"))
    assert " ".join(" ".join(cue.lines) for cue in shown) == LONG
    assert len(shown) >= 3
    for cue in shown:
        assert len(cue.lines) <= 2
        assert all(len(line) <= 42 for line in cue.lines)
        assert SHORTEST <= round(cue.end - cue.start, 3) <= LONGEST
        assert sum(map(len, cue.lines)) <= SPEED * (cue.end - cue.start)
        assert not any(line.split()[-1].lower() in BINDING["en"] for line in cue.lines)
    assert all(after.start - cue.end >= GAP - 0.001 for cue, after in pairwise(shown))
    assert [cue.start for cue in shown] == [pytest.approx(1.0), *(_start_of(value, cue.lines[0]) for cue in shown[1:])]


def _start_of(value: Transcript, line: str) -> Any:
    """When the first word of a line that occurs once is said."""
    text = " ".join(word.word for word in value.word_segments)
    return pytest.approx(value.word_segments[text[: text.index(line)].count(" ")].start, abs=0.001)


def test_sentences_begin_subtitles_of_their_own() -> None:
    value = transcript(
        segment(0.0, 3.0, "We looked at every one of the houses."), segment(3.1, 6.0, "None of them was what we had in mind.")
    )
    assert lines_of(value) == ["We looked at every one of the houses.", "None of them was what we had in mind."]
    assert len(read_srt(render_text(value, "srt"))) == 2


def test_a_short_subtitle_lingers_into_the_pause_but_not_beyond_what_comes_next() -> None:
    value = transcript(
        segment(1.0, 1.3, "Yes."), segment(9.0, 11.0, "That is what I said."), segment(11.1, 14.0, "And I meant it, too.")
    )
    shown = read_srt(render_text(value, "srt"))
    assert (shown[0].start, shown[0].end) == (1.0, 2.0)
    assert shown[1].end == pytest.approx(11.1 - GAP, abs=0.001)


def test_brief_words_of_two_speakers_share_a_subtitle_a_line_each() -> None:
    value = transcript(
        segment(0.0, 0.5, "Really?", "SPEAKER_00"),
        segment(0.6, 1.5, "Of course.", "SPEAKER_01"),
        speakers=("SPEAKER_00", "SPEAKER_01"),
    )
    (cue,) = read_srt(render_text(value, "srt"))
    assert cue.lines == ("- Speaker 1: Really?", "- Speaker 2: Of course.")
    assert render_text(value, "vtt").splitlines()[3:5] == ["<v Speaker 1>- Really?", "<v Speaker 2>- Of course."]


def test_the_speaker_is_shown_where_it_changes_and_is_a_voice_in_vtt() -> None:
    value = transcript(
        segment(0.0, 3.0, "I was there in the morning.", "SPEAKER_00"),
        segment(3.2, 6.0, "Nobody had come.", "SPEAKER_00"),
        segment(6.1, 9.0, "So you left & went home?", "SPEAKER_01"),
        speakers=("SPEAKER_00", "SPEAKER_01"),
    )
    assert lines_of(value, speaker_names="Anna, Ben <3") == [
        "Anna: I was there in the morning.",
        "Nobody had come.",
        "Ben <3: So you left & went home?",
    ]
    voices = [
        line for line in render_text(value, "vtt", RenderOptions(speaker_names="Anna, Ben <3")).splitlines() if "<v" in line
    ]
    assert voices == [
        "<v Anna>I was there in the morning.",
        "<v Anna>Nobody had come.",
        "<v Ben &lt;3>So you left &amp; went home?",
    ]


def test_lines_of_chinese_hold_sixteen_characters() -> None:
    text = "我们今天讨论了明年的预算并且决定在下个月之前征求所有成员的意见然后再作决定"
    value = transcript(segment(0.0, 9.0, text, spaced=False), language="zh")
    lines = lines_of(value)
    assert "".join(lines) == text
    assert all(columns(line) <= 32 for line in lines)
    assert len(lines) >= 3


def test_lines_from_right_to_left_keep_their_punctuation() -> None:
    value = transcript(segment(0.0, 3.0, "أهلا وسهلا بكم."), language="ar")
    assert "\u200fأهلا وسهلا بكم.\u200f" in render_text(value, "srt")


@pytest.mark.parametrize("width, count", [(20, 1), (30, 2), (42, 3)])
def test_lines_are_as_asked(width: int, count: int) -> None:
    value = transcript(segment(0.0, 20.0, LONG, "SPEAKER_00"), speakers=("SPEAKER_00",))
    shown = read_srt(render_text(value, "srt", RenderOptions(max_line_width=width, max_line_count=count)))
    assert " ".join(" ".join(cue.lines) for cue in shown) == f"Speaker 1: {LONG}"
    assert all(len(line) <= width for cue in shown for line in cue.lines)
    assert max(len(cue.lines) for cue in shown) <= count
    assert any(len(cue.lines) == count for cue in shown)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("highlight", [False, True])
def test_no_word_is_lost_and_times_are_in_order_whatever_was_said(seed: int, highlight: bool) -> None:
    value = hostile(seed)
    shown = read_srt(render_text(value, "srt", RenderOptions(highlight_words=highlight)))
    assert all(cue.end > cue.start for cue in shown)
    assert all(after.start >= cue.end - 0.0005 for cue, after in pairwise(shown))
    if not highlight:
        written = re.sub(r"\s|-{2,}>|->", "", " ".join(" ".join(cue.lines) for cue in shown))
        for part in value.segments:
            for word in part.words:
                assert re.sub(r"[\s\x00-\x20\x7f-\x9f]|-{2,}>|<[^>]*>|\u200f", "", word.word) in written


# -- speakers -------------------------------------------------------------------------------------------------------------


def test_names_are_given_in_order_or_by_label() -> None:
    value = TALK.model_copy(update={"speakers": ("SPEAKER_01", "SPEAKER_00")})
    assert render_text(value, "txt", RenderOptions(speaker_names="Anna")).startswith("Anna [0:00] So, how")
    assert "\nSpeaker 1 [0:04] It rained" in render_text(value, "txt", RenderOptions(speaker_names="Anna"))
    assert "\nBen [0:04] It rained" in render_text(value, "txt", RenderOptions(speaker_names="SPEAKER_00=Ben"))
    assert render_text(value, "txt", RenderOptions(speaker_names="Smith, Anna; Jones")).startswith("Smith, Anna [0:00]")
    with pytest.raises(InvalidOption, match="not both"):
        render(value, "txt", RenderOptions(speaker_names="Anna, SPEAKER_00=Ben"))


def test_json_keeps_labels_beside_the_names_and_reads_back() -> None:
    value = TALK.model_copy(update={"speakers": ("SPEAKER_01", "SPEAKER_00")})
    written = Transcript.model_validate_json(render(value, "json", RenderOptions(speaker_names="Anna")))
    assert written.speaker_names == {"SPEAKER_01": "Anna"}
    assert [part.speaker for part in written.segments] == [part.speaker for part in TALK.segments]
    assert render_text(written, "txt").startswith("Anna [0:00]")
    assert "speaker_names" not in render_text(value, "json")


# -- text and documents ---------------------------------------------------------------------------------------------------

PARAGRAPHS = transcript(
    segment(1.0, 3.0, "Good morning.", "SPEAKER_00"),
    segment(3.2, 5.0, "*Shall* we <b>begin</b>?", "SPEAKER_00"),
    segment(14.2, 16.0, "=1+1 is two.", "SPEAKER_01"),
    speakers=("SPEAKER_00", "SPEAKER_01"),
    untranscribed=(Stretch(start=6.0, end=12.0),),
)


def test_text_has_a_paragraph_per_turn_and_says_where_words_are_missing() -> None:
    assert render_text(PARAGRAPHS, "txt") == (
        "Speaker 1 [0:01] Good morning. *Shall* we <b>begin</b>?\n\n"
        "[0:06] [no words recognized until 0:12]\n\n"
        "Speaker 2 [0:14] =1+1 is two.\n"
    )


def test_what_is_said_is_no_markup_in_markdown() -> None:
    said = render_text(PARAGRAPHS, "md", RenderOptions(uri="a_b"))
    assert said.startswith("# a\\_b\n\n**Speaker 1** \\[0:01\\] Good morning. \\*Shall\\* we \\<b\\>begin\\</b\\>?\n")


def test_csv_reads_back_and_computes_nothing() -> None:
    rows = list(csv.reader(io.StringIO(render_text(PARAGRAPHS, "csv"))))
    assert rows[0] == ["start", "end", "speaker", "text"]
    assert rows[3] == ["14.200", "16.000", "Speaker 2", "'=1+1 is two."]


def test_tsv_has_a_column_of_speakers_where_any_are_known() -> None:
    assert render_text(PARAGRAPHS, "tsv").splitlines()[:2] == [
        "start\tend\tspeaker\ttext",
        "1000\t3000\tSpeaker 1\tGood morning.",
    ]
    assert render_text(transcript(segment(0.0, 1.0, "Yes.")), "tsv") == "start\tend\ttext\n0\t1000\tYes.\n"


def test_docx_holds_the_paragraphs() -> None:
    from docx import Document

    content = render(PARAGRAPHS, "docx", RenderOptions(uri="board"))
    written = [paragraph.text for paragraph in Document(io.BytesIO(content)).paragraphs]
    assert written == [
        "board",
        "Speaker 1 [0:01] Good morning. *Shall* we <b>begin</b>?",
        "[0:06] no words recognized until 0:12",
        "Speaker 2 [0:14] =1+1 is two.",
    ]
    assert zipfile.ZipFile(io.BytesIO(content)).testzip() is None


def test_eaf_has_a_tier_of_words_inside_each_speaker_s() -> None:
    root = ElementTree.fromstring(render(TALK, "eaf", RenderOptions(audio="talk.wav")))
    times = {slot.attrib["TIME_SLOT_ID"]: int(slot.attrib["TIME_VALUE"]) for slot in root.iter("TIME_SLOT")}
    tiers = {tier.attrib["TIER_ID"]: tier for tier in root.iter("TIER")}
    assert set(tiers) == {"Speaker 1", "Speaker 1 words", "Speaker 2", "Speaker 2 words"}
    assert tiers["Speaker 1 words"].attrib["PARENT_REF"] == "Speaker 1"

    def spans(tier: ElementTree.Element) -> list[tuple[int, int, str | None]]:
        return [
            (times[item.attrib["TIME_SLOT_REF1"]], times[item.attrib["TIME_SLOT_REF2"]], item.findtext("ANNOTATION_VALUE"))
            for item in tier.iter("ALIGNABLE_ANNOTATION")
        ]

    assert spans(tiers["Speaker 2"])[0] == (520, 4110, "So, how was the trip to the coast last week?")
    utterances = spans(tiers["Speaker 1"])
    for start, end, _ in spans(tiers["Speaker 1 words"]):
        assert any(begin <= start < end <= until for begin, until, _ in utterances)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("format", ["eaf", "docx", "html", "md", "csv", "txt"])
def test_any_text_gives_a_file_that_reads_back(seed: int, format: str) -> None:
    content = render(hostile(seed), format)
    if format == "eaf":
        ElementTree.fromstring(content)
    elif format == "docx":
        from docx import Document

        Document(io.BytesIO(content))
    else:
        assert content.decode()


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.words: list[tuple[float, str]] = []
        self._time: float | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._time = float(dict(attrs)["data-t"] or 0) if tag == "span" else None

    def handle_data(self, data: str) -> None:
        if self._time is not None:
            self.words.append((self._time, data))
            self._time = None


def test_the_page_has_every_word_with_its_time_and_no_markup_of_the_speakers() -> None:
    page = _Page()
    text = render_text(PARAGRAPHS, "html", RenderOptions(uri="<script>alert(1)</script>", audio="a b/<x>.wav"))
    page.feed(text)
    assert page.words[:3] == [(1.0, "Good"), (2.0, "morning."), (3.2, "*Shall*")]
    assert [word for _, word in page.words] == [word.word for word in PARAGRAPHS.word_segments]
    assert "b" not in page.tags
    assert 'src="a%20b/%3Cx%3E.wav"' in text
    assert "<script>alert" not in text
    assert "http" not in re.sub(r"http-equiv", "", text), "the page loads nothing from elsewhere"


def test_cutting_a_day_of_speech_takes_time_in_proportion() -> None:
    """The words that are looked at grow with the words there are, not with their square."""
    rng = random.Random(5)
    words = " ".join(rng.choice(["so", "the", "meeting,", "house", "talked", "about", "it."]) for _ in range(20_000))
    value = transcript(Segment(start=0.0, end=9000.0, text=words))
    assert len(read_srt(render_text(value, "srt"))) > 1000


def test_what_is_said_in_another_language_is_marked_split_and_directed_as_that_language() -> None:
    said = [
        segment(1.0, 3.0, "That is all."),
        segment(3.2, 5.0, "هذا كل شيء!").model_copy(update={"language": "ar"}),
        segment(5.2, 7.0, "你好。").model_copy(update={"language": "zh"}),
    ]
    value = transcript(said[0].model_copy(update={"language": "en"}), *said[1:], languages=("en", "ar", "zh"))
    page = render_text(value, "html")
    assert '<html lang="en">' in page
    assert re.findall(r'<p( lang="\w+")?>', page) == ["", ' lang="ar"', ' lang="zh"']
    subtitles = render_text(value, "srt")
    assert "\u200fهذا كل شيء!\u200f" in subtitles
    assert subtitles.count("\u200f") == 2
    assert lines_of(value)[-1] == "你好。"
    found = Transcript.model_validate_json(render_text(value, "json"))
    assert (found.languages, [part.language for part in found.segments]) == (("en", "ar", "zh"), ["en", "ar", "zh"])
    assert [part.strip() for part in re.findall(r"\] ([^\n]+)", render_text(value, "txt"))] == [part.text for part in said]
