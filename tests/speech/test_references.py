"""The truth as it lies in files: what each format says, what is refused and where, and a transcript held to it."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from speech.formats import render_text
from speech.scoring import ScoringOptions, Spoken, score
from speech.scoring.marks import Utterance
from speech.scoring.references import Reference, read_reference
from stenoflow.errors import InvalidReference
from stenoflow.types import Segment, Transcript, Turn, Word


def read(recording: str = "talk", **files: str) -> Reference:
    return read_reference({f"{recording}.{suffix}": text.encode() for suffix, text in files.items()}, recording)


def transcript(*words: tuple[str, float, float, str | None], duration: float = 10.0, **fields: Any) -> Transcript:
    """One segment per speaker's run of words, and turns that are those segments."""
    timed = [
        Word(word=word, start=start, end=end, score=0.9, timing="attention", speaker=speaker)
        for word, start, end, speaker in words
    ]
    runs: list[list[Word]] = []
    for word in timed:
        if runs and runs[-1][-1].speaker == word.speaker:
            runs[-1].append(word)
        else:
            runs.append([word])
    segments = tuple(
        Segment(
            start=run[0].start,
            end=run[-1].end,
            text=" ".join(word.word for word in run),
            speaker=run[0].speaker,
            words=tuple(run),
        )
        for run in runs
    )
    turns = tuple(Turn(start=one.start, end=one.end, speaker=one.speaker) for one in segments if one.speaker)
    return Transcript(
        language="en",
        duration=duration,
        segments=segments,
        word_segments=tuple(timed),
        turns=turns,
        speakers=tuple(sorted({turn.speaker for turn in turns})),
        **fields,
    )


# -- what each format says ----------------------------------------------------------------------------------------------


def test_stm_says_what_is_said_by_whom() -> None:
    found = read(
        stm=";; made by hand\n"
        "talk 1 bob 3.0 4.5 <o,f0,male> {cannot / can not} do (that) (%hesitation) [laughter]\n"
        "talk 1 ann 1.0 2.0 Good morning. ;; said twice\n"
        "talk 1 inter_segment_gap 2.0 3.0 <o,,>\n"
        "talk 1 bob 5.0 6.0 IGNORE_TIME_SEGMENT_IN_SCORING\n"
    )
    assert found.utterances == (Utterance("ann", 1.0, 2.0, "Good morning."), Utterance("bob", 3.0, 4.5, "cannot do that"))
    assert found.activity == (("ann", 1.0, 2.0), ("bob", 3.0, 4.5))
    assert found.counted(8.0) == ((0.0, 5.0), (6.0, 8.0))


def test_ctm_says_when_each_word_is_said() -> None:
    found = read(
        ctm="talk A 1.5 0.5 morning 0.9\n"
        "talk A 1.0 0.4 good\n"
        "talk A 2.0 0.2 uh 0.9 fp ann\n"
        "talk A * * <ALT_BEGIN>\ntalk A 3.0 0.5 colour\ntalk A * * <ALT>\ntalk A 3.0 0.5 color\ntalk A * * <ALT_END>\n"
        "talk A 4.0 0.5 all 0.9 lex ann\n"
    )
    assert found.timed_words == (
        Spoken("good", 1.0, 1.4),
        Spoken("morning", 1.5, 2.0),
        Spoken("colour", 3.0, 3.5),
        Spoken("all", 4.0, 4.5, "ann"),
    )
    assert [utterance.text for utterance in found.utterances or ()] == ["good", "morning", "colour", "all"]
    assert found.activity is None
    assert not found.has_speakers


def test_rttm_says_who_is_audible_and_uem_what_is_scored() -> None:
    found = read(
        rttm="SPKR-INFO talk 1 <NA> <NA> <NA> unknown ann <NA> <NA>\nSPEAKER talk 1 2 1.5 <NA> <NA> ann <NA> <NA>\n",
        uem="talk 1 5 9\ntalk 1 0 4\n",
    )
    assert found.activity == (("ann", 2.0, 3.5),)
    assert found.counted(20) == ((0.0, 4.0), (5.0, 9.0))
    assert found.utterances is None


def test_our_own_json_is_read_back_whole() -> None:
    written = transcript(("Good", 1.0, 1.4, "ann"), ("morning.", 1.5, 2.0, "ann"), ("Hello?", 3.0, 3.5, "bob"))
    found = read(json=render_text(written, "json"))
    assert found.utterances == (Utterance("ann", 1.0, 2.0, "Good morning."), Utterance("bob", 3.0, 3.5, "Hello?"))
    assert found.timed_words == (
        Spoken("Good", 1.0, 1.4, "ann"),
        Spoken("morning.", 1.5, 2.0, "ann"),
        Spoken("Hello?", 3.0, 3.5, "bob"),
    )
    assert (found.activity, found.language) == ((("ann", 1.0, 2.0), ("bob", 3.0, 3.5)), "en")


def test_whisperx_json_is_split_where_a_segment_has_several_speakers() -> None:
    words = [
        {"word": "Hi.", "start": 1.0, "end": 1.2, "speaker": "SPEAKER_00"},
        {"word": "5"},
        {"word": "Hello.", "start": 2.0, "end": 2.4, "speaker": "SPEAKER_01"},
    ]
    segment = {"start": 1.0, "end": 2.4, "text": " Hi. 5 Hello.", "words": words, "speaker": "SPEAKER_00"}
    found = read(json=json.dumps({"segments": [segment], "word_segments": words, "language": "english"}))
    assert [(one.speaker, one.text) for one in found.utterances or ()] == [("SPEAKER_00", "Hi. 5"), ("SPEAKER_01", "Hello.")]
    assert found.language == "en"


def test_a_transcript_without_speakers_does_not_say_that_nobody_spoke() -> None:
    found = read(json=json.dumps({"segments": [{"start": 0, "end": 1, "text": "Hi."}], "turns": []}))
    assert found.activity is None
    assert read(json=json.dumps({"segments": [], "turns": []})).activity == ()


def test_what_people_write_comes_before_a_transcript_that_was_left_there() -> None:
    machine = json.dumps({"segments": [{"start": 0, "end": 1, "text": "Machine.", "speaker": "S"}]})
    found = read(json=machine, stm="talk 1 ann 0 1 Human.", ctm="talk 1 0 1 Human.", rttm="SPEAKER talk 1 0 1 - - ann - -")
    assert found.utterances == (Utterance("ann", 0.0, 1.0, "Human."),)
    assert found.timed_words == (Spoken("Human.", 0.0, 1.0),)
    assert found.activity == (("ann", 0.0, 1.0),)


def test_plain_text_will_do_for_the_words() -> None:
    found = read(txt="\ufeffGood\nmorning.\n")
    assert found.utterances == (Utterance(None, None, None, "Good morning."),)
    assert found.activity is None


def test_a_file_about_several_recordings_is_read_for_one() -> None:
    rttm = "SPEAKER a 1 0 1 - - ann - -\nSPEAKER b 1 0 2 - - bob - -\n"
    assert read_reference({"set.rttm": rttm.encode()}, "b").activity == (("bob", 0.0, 2.0),)
    assert read_reference({"c.rttm": rttm.splitlines()[0].encode()}, "c").activity == (("ann", 0.0, 1.0),)
    with pytest.raises(InvalidReference, match=r"set\.rttm covers 2 recordings, none named 'c'"):
        read_reference({"set.rttm": rttm.encode()}, "c")


def test_the_sample_recordings_truth_is_read() -> None:
    spec = find_spec("pyannote")
    assert spec is not None and spec.submodule_search_locations is not None
    folder = Path(next(iter(spec.submodule_search_locations)), "audio/sample")
    found = read_reference({name: (folder / name).read_bytes() for name in ("sample.rttm", "sample.stm")}, "sample")
    assert len(found.utterances or ()) == 13
    assert found.speakers == {"speaker90", "speaker91"}


# -- what is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "text", "says"),
    [
        ("rttm", "SPEAKER talk 1 0 1 - - ann\nSPEAKER talk 1 0 one - - ann", "line 2: the duration (field 5) is not a number"),
        ("rttm", "\n\nSPEAKER talk 1 0 1", "line 3: 5 fields instead of 8"),
        ("rttm", "1\n00:00:01,000 --> 00:00:02,000\nHi.", "line 1: the first field is not an RTTM type"),
        ("rttm", "SPEAKER talk 1 -1 1 - - ann", "line 1: the start (field 4) is not a time in a recording"),
        ("stm", ";; fine\ntalk 1 ann 2.0 1.0 Hi.", "line 2: ends at 1 s, before it starts at 2 s"),
        ("stm", "talk 1 ann nan 1.0 Hi.", "line 1: the start (field 4) is not a time in a recording"),
        ("stm", "Good morning.", "line 1: 2 fields instead of 5"),
        ("ctm", "talk 1 0.5 secret", "line 1: 4 fields instead of 5"),
        ("ctm", "talk 1 zero 0.5 secret", "line 1: the start (field 3) is not a number of seconds"),
        ("uem", "talk 1 0", "line 1: 3 fields instead of 4"),
        ("json", '{"segments":\n [}', "line 2: not valid JSON"),
        ("json", "[1]", "segments.0: input should be"),
        ("json", '"secret"', "top level: must be an object with `segments`"),
        ("json", '{"text": "secret"}', "segments: field required; a reference has `segments`"),
        ("json", '{"segments": [{"start": 0, "end": 1, "text": "secret"}, {"text": 1}]}', "segments.1.text: input should be"),
        ("json", '{"segments": [{"start": 2, "end": 1, "text": "secret"}]}', "segments.0: ends at 1 s, before it starts"),
        ("json", '{"segments": [], "language": "klingon"}', "language: must be a code such as 'en'"),
        ("json", '{"segments": [{"text": "secret", "start": NaN}]}', "segments.0.start: input should be"),
    ],
)
def test_a_malformed_file_is_refused_by_name_and_line(suffix: str, text: str, says: str) -> None:
    with pytest.raises(InvalidReference) as refused:
        read(**{suffix: text})
    assert f"talk.{suffix}, {says}" in refused.value.message
    assert "secret" not in refused.value.message


def test_a_file_in_another_encoding_is_refused_at_its_line() -> None:
    with pytest.raises(InvalidReference, match=r"talk\.stm, line 2: not UTF-8"):
        read_reference({"talk.stm": "talk 1 ann 0 1 Hi.\ntalk 1 ann 1 2 Été.".encode("latin-1")}, "talk")


def test_a_recording_without_truth_is_refused() -> None:
    with pytest.raises(InvalidReference, match="No readable reference for talk"):
        read_reference({}, "talk")


# -- a transcript held to it --------------------------------------------------------------------------------------------

STM = "talk 1 ann 1.0 2.0 Good morning.\ntalk 1 bob 3.0 4.0 Hello there.\n"
HEARD = (("Good", 1.0, 1.4, "A"), ("morning", 1.5, 2.0, "A"), ("Hello", 3.0, 3.5, "A"), ("here", 3.5, 4.0, "B"))


def test_every_score_that_both_can_give_is_given() -> None:
    truth = read(stm=STM, ctm="talk 1 1.1 0.4 good\ntalk 1 1.5 0.5 morning\n")
    found = score(truth, transcript(*HEARD), ScoringOptions(), diarized=True)
    assert found.words is not None and found.speaker_words is not None and found.diarization is not None
    assert (found.words.substitutions, found.words.errors, found.words.reference_words) == (1, 1, 4)
    assert found.whisper_words == found.words
    # Bob's "Hello there" was given to A ("Hello") and misheard ("here").
    assert found.speaker_words.errors == 3
    assert (found.diarization.confusion, found.diarization.total) == pytest.approx((0.5, 2.0))
    assert found.speakers is not None and found.speakers.error == 0
    assert found.times is not None
    assert (found.times.matched, found.times.start_mae) == (2, pytest.approx(0.05))


def test_without_speakers_only_the_words_are_scored() -> None:
    found = score(read(stm=STM), transcript(*HEARD), ScoringOptions(), diarized=False)
    assert found.words is not None
    assert (found.speaker_words, found.timed_words, found.diarization, found.speakers, found.times) == (
        None,
        None,
        None,
        None,
        None,
    )


def test_only_what_is_scored_counts() -> None:
    truth = read(stm=STM, uem="talk 1 0 2.5\n")
    found = score(truth, transcript(*HEARD), ScoringOptions(), diarized=True)
    assert found.words is not None and found.words.errors == 0 and found.words.reference_words == 2
    assert found.diarization is not None and found.diarization.total == pytest.approx(1.0)
    assert found.speakers is not None and (found.speakers.true, found.speakers.found) == (1, 1)
    ignoring = read(stm=STM + "talk 1 x 2.5 9 IGNORE_TIME_SEGMENT_IN_SCORING\n")
    again = score(ignoring, transcript(*HEARD), ScoringOptions(), diarized=True)
    assert again.words is not None and again.words.errors == 0


def test_an_empty_transcript_misses_everything() -> None:
    silent = Transcript(language="en", duration=10.0, segments=(), word_segments=())
    found = score(read(stm=STM), silent, ScoringOptions(), diarized=True)
    assert found.words is not None and found.words.rate == 1
    assert found.diarization is not None and found.diarization.rate == 1
    assert found.speakers is not None and found.speakers.error == -2


def test_the_language_of_the_rules_is_the_one_given_else_the_truths_else_the_transcripts() -> None:
    heard = transcript(("Deux", 0.0, 1.0, None), options={"task": "transcribe"})
    options = ScoringOptions()
    said = json.dumps({"segments": [{"text": "2"}], "language": "fr"})
    assert score(read(json=said), heard, options, diarized=False).words.rate == 0  # type: ignore[union-attr]
    assert score(read(txt="2"), heard, options, diarized=False).words.rate == 1  # type: ignore[union-attr]
    assert score(read(txt="2"), heard, options, diarized=False, language="fr").words.rate == 0  # type: ignore[union-attr]
    translated = heard.model_copy(update={"language": "fr", "options": {"task": "translate"}})
    assert score(read(txt="2"), translated, options, diarized=False).language == "en"


def test_words_without_a_time_hold_the_places_of_those_with_one() -> None:
    segments = [
        {"start": 0, "end": 1, "text": "No no."},
        {"start": 2, "end": 3, "text": "No?", "words": [{"word": "No?", "start": 2.1, "end": 2.6}]},
    ]
    truth = read(json=json.dumps({"segments": segments}))
    assert truth.timed_words == (Spoken("No"), Spoken("no."), Spoken("No?", 2.1, 2.6))
    heard = transcript(("No", 0.1, 0.4, None), ("no", 0.5, 0.9, None), ("no", 2.1, 2.6, None))
    found = score(truth, heard, ScoringOptions(), diarized=False)
    assert found.times is not None
    assert (found.times.matched, found.times.start_mae) == (1, 0)
