"""What many recordings are listed from, and what of it is left or refused."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from infra.listing import Item, Left, Refused, entries, feeds
from infra.names import output_stem
from infra.settings import BatchSettings, S3Settings, StenoSettings
from infra.sources import fetch_source
from stenoflow.errors import InputError, ListTooLong, SourceForbidden, SourceNotFound, SourceTooLarge, UnreadableList
from tests.infra.conftest import FaultServer, make_settings, s3_client
from tests.stage_double import recording

RSS = """<?xml version="1.0" encoding="utf-8"?>
<rss version="2.0" xmlns:itunes="http://www.itunes.com/dtds/podcast-1.0.dtd" xmlns:atom="http://www.w3.org/2005/Atom">
<channel><title>The show</title>{next}
<item><title>One / two: the start</title><guid>ep-1</guid><pubDate>Mon, 06 May 2024 06:00:00 GMT</pubDate>
  <itunes:title>not this</itunes:title>
  <enclosure url="/media/audio.mp3?token={token}" type="audio/mpeg" length="10"/></item>
<item><title>A post</title><guid>post</guid></item>
<item><title>Second</title><guid isPermaLink="false">ep-2</guid>
  <enclosure url="https://cdn.example.org/b/audio.mp3" type="audio/mpeg"/></item>
<item><title>Elsewhere</title><guid>ep-3</guid><enclosure url="file:///etc/passwd.mp3" type="audio/mpeg"/></item>
</channel></rss>"""

ATOM = """<feed xmlns="http://www.w3.org/2005/Atom"><title>T</title>
<entry><id>urn:1</id><title>Atom one</title><published>2024-05-06T06:00:00Z</published>
<link rel="alternate" href="https://example.org/1"/><link rel="enclosure" type="audio/mp4" href="https://example.org/1.m4a"/></entry></feed>"""


def quick(home: Path, settle: float = 0.0, **batch: Any) -> StenoSettings:
    return StenoSettings(home=home, batch=BatchSettings(settle_seconds=settle, **batch))


def listed(source: str | Path, settings: StenoSettings, **options: Any) -> list[Item]:
    return [entry for entry in entries(str(source), settings, **options) if isinstance(entry, Item)]


def refused(source: str | Path, settings: StenoSettings, **options: Any) -> list[Refused]:
    return [entry for entry in entries(str(source), settings, **options) if isinstance(entry, Refused)]


def make(folder: Path, *names: str, content: bytes = b"sound") -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


# -- folders and globs --------------------------------------------------------------------------------------------------


def test_a_folder_lists_its_recordings_and_nothing_hidden_partial_or_else(tmp_path: Path) -> None:
    make(
        tmp_path / "in", "b.WAV", "a.mp3", ".c.mp3", "d.mp3.part", "e.mp3.crdownload", "notes.txt", ".cache/f.mp3", "deep/g.ogg"
    )
    assert [item.name for item in listed(tmp_path / "in", quick(tmp_path))] == ["a.mp3", "b.WAV"]


def test_recursive_takes_the_folders_below_and_says_where_each_was(tmp_path: Path) -> None:
    make(tmp_path / "in", "a.mp3", "one/two/b.mp3", "one/c.mp3")
    found = listed(tmp_path / "in", quick(tmp_path), recursive=True)
    assert {(item.name, item.folder) for item in found} == {("a.mp3", ""), ("b.mp3", "one/two"), ("c.mp3", "one")}


def test_a_recording_is_another_version_once_its_content_is_written_anew(tmp_path: Path) -> None:
    make(tmp_path / "in", "a.mp3")
    (before,) = listed(tmp_path / "in", quick(tmp_path))
    assert listed(tmp_path / "in", quick(tmp_path)) == [before]
    make(tmp_path / "in", "a.mp3", content=b"other sound")
    (after,) = listed(tmp_path / "in", quick(tmp_path))
    assert after.origin == before.origin
    assert after.version != before.version


def test_a_file_that_still_grows_is_left_and_one_just_copied_is_not(tmp_path: Path) -> None:
    make(tmp_path / "in", "copied.mp3", "growing.mp3")
    over = threading.Event()

    def grow() -> None:
        while not over.wait(0.05):
            with (tmp_path / "in/growing.mp3").open("ab") as file:
                file.write(b"more")

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        found = list(entries(str(tmp_path / "in"), quick(tmp_path, settle=0.6)))
    finally:
        over.set()
        writer.join()
    assert [item.name for item in found if isinstance(item, Item)] == ["copied.mp3"]
    (left,) = [entry for entry in found if isinstance(entry, Refused)]
    assert left.name == "growing.mp3"
    assert left.later


def test_a_file_from_the_future_is_looked_at_twice(tmp_path: Path) -> None:
    make(tmp_path / "in", "whole.mp3", "growing.mp3")
    over = threading.Event()

    def grow() -> None:
        while not over.wait(0.05):
            with (tmp_path / "in/growing.mp3").open("ab") as file:
                file.write(b"more")
            os.utime(tmp_path / "in/growing.mp3", (4e9, 4e9))

    os.utime(tmp_path / "in/whole.mp3", (4e9, 4e9))
    os.utime(tmp_path / "in/growing.mp3", (4e9, 4e9))
    writer = threading.Thread(target=grow)
    writer.start()
    try:
        found = list(entries(str(tmp_path / "in"), quick(tmp_path, settle=0.5)))
    finally:
        over.set()
        writer.join()
    assert [(entry.name, isinstance(entry, Item)) for entry in found] == [("growing.mp3", False), ("whole.mp3", True)]


def test_a_file_from_the_future_is_not_waited_for(tmp_path: Path) -> None:
    make(tmp_path / "in", "a.mp3")
    os.utime(tmp_path / "in/a.mp3", (time.time() + 9999, time.time() + 9999))
    assert len(listed(tmp_path / "in", quick(tmp_path, settle=600))) == 1


def test_trouble_with_one_entry_does_not_hide_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "in", "a.mp3", "broken/b.mp3", "deep/c.mp3", "gone.mp3", "unreadable.mp3")
    for name in ("loop.mp3", "loop", "dangling.mp3"):
        (tmp_path / "in" / name).symlink_to(name if "loop" in name else "nowhere.mp3")
    scan, stat = os.scandir, Path.stat

    def faulty_scan(folder: str | Path) -> Any:
        if Path(folder).name == "broken":
            raise OSError(5, "Input/output error")
        return scan(folder)

    def faulty_stat(path: Path, **options: Any) -> os.stat_result:
        if path.name in ("gone.mp3", "unreadable.mp3"):
            raise FileNotFoundError if path.name == "gone.mp3" else PermissionError
        return stat(path, **options)

    monkeypatch.setattr(os, "scandir", faulty_scan)
    monkeypatch.setattr(Path, "stat", faulty_stat)
    found = list(entries(str(tmp_path / "in"), quick(tmp_path), recursive=True))
    assert sorted(entry.name for entry in found if isinstance(entry, Item)) == ["a.mp3", "c.mp3"]
    bad = {entry.name: entry for entry in found if isinstance(entry, Refused)}
    assert sorted(bad) == ["broken/", "dangling.mp3", "gone.mp3", "loop", "loop.mp3", "unreadable.mp3"]
    assert [name for name, entry in bad.items() if entry.later] == ["gone.mp3"]
    assert "Input/output" in bad["broken/"].message
    assert "permissions" in bad["unreadable.mp3"].message


LISTED_BY_NOBODY = """
import os, sys
from pathlib import Path
from infra.listing import entries
from infra.settings import StenoSettings
from stenoflow.errors import StenoError
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    for entry in entries(sys.argv[1], StenoSettings(home=Path("/nonexistent")), recursive=True):
        print(type(entry).__name__, entry.name)
except StenoError as error:
    print(error.code, error.message)
"""


@pytest.mark.parametrize(
    ("unreadable", "mode", "said"),
    [
        ("in", 0o444, ["Refused a.mp3", "Refused b.mp3", "Refused deep/"]),
        ("in", 0o000, ["source_denied The folder {folder}/in is not readable by this user; check its permissions."]),
        ("in/deep", 0o000, ["Item a.mp3", "Item b.mp3", "Refused deep/"]),
    ],
)
def test_a_folder_that_this_user_may_not_read_or_search_says_so(unreadable: str, mode: int, said: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder / "in", "a.mp3", "b.mp3", "deep/c.mp3")
        folder.chmod(0o755)
        (folder / unreadable).chmod(mode)
        command = [sys.executable, "-c", LISTED_BY_NOBODY, str(folder / "in")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        (folder / unreadable).chmod(0o755)
        assert sorted(done.stdout.splitlines()) == [line.format(folder=folder) for line in said], done.stderr


def test_what_its_name_does_not_say_is_looked_into(tmp_path: Path) -> None:
    recording(tmp_path / "in/known.wav", seconds=0.5)
    for name in ("call", "call.dat", "memo.qta", "own.srt", "x.unknown"):
        (tmp_path / "in" / name).write_bytes((tmp_path / "in/known.wav").read_bytes())
    texts = {
        "page": "<html><body>Sign in</body></html>",
        "notes.txt": "Buy milk.",
        "data": '{"a": 1}',
        "list.csv": "source\n",
    }
    for name, text in texts.items():
        (tmp_path / "in" / name).write_text(text)
    make(tmp_path / "in", "telephone.g722", "a.wav.part", "empty", content=b"")
    found = list(entries(str(tmp_path / "in"), quick(tmp_path)))
    assert [entry.name for entry in found if isinstance(entry, Item)] == [
        *("call", "call.dat", "known.wav", "memo.qta", "own.srt", "telephone.g722", "x.unknown"),
    ]
    left = {entry.name: entry.message for entry in found if isinstance(entry, Left)}
    assert set(left) == {*texts, "a.wav.part", "empty"}
    assert (left["page"], left["data"]) == ("not a recording: a web page", "not a recording: a JSON document")
    assert left["empty"] == "empty"
    assert "unfinished" in left["a.wav.part"]
    assert listed(tmp_path / "in/call", quick(tmp_path))[0].name == "call"


def test_links_to_folders_are_not_followed_in_circles(tmp_path: Path) -> None:
    make(tmp_path / "in", "a.mp3")
    (tmp_path / "in/loop").symlink_to(tmp_path / "in", target_is_directory=True)
    (tmp_path / "in/linked.mp3").symlink_to(tmp_path / "in/a.mp3")
    assert [item.name for item in listed(tmp_path / "in", quick(tmp_path), recursive=True)] == ["a.mp3", "linked.mp3"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [("in/*.mp3", ["a.mp3"]), ("in/**/*.mp3", ["a.mp3", "b.mp3"]), ("in/*/b.*", ["b.mp3"]), ("i[n]/?.mp3", ["a.mp3"])],
)
def test_a_glob_lists_what_it_matches(tmp_path: Path, pattern: str, names: list[str]) -> None:
    make(tmp_path, "in/a.mp3", "in/deep/b.mp3", "in/deep/b.txt")
    assert sorted(item.name for item in listed(tmp_path / pattern, quick(tmp_path))) == names


def test_a_recording_that_a_glob_reaches_twice_is_listed_once(tmp_path: Path) -> None:
    make(tmp_path, "in/a.mp3", "in/deep/b.mp3", "in/deep/er/c.mp3")
    assert sorted(item.name for item in listed(tmp_path / "in/**", quick(tmp_path), recursive=True)) == [
        "a.mp3",
        "b.mp3",
        "c.mp3",
    ]


def test_what_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match="no folder or file"):
        listed(tmp_path / "gone", quick(tmp_path))
    with pytest.raises(SourceNotFound, match="Nothing matches"):
        listed(tmp_path / "*.mp3", quick(tmp_path))
    make(tmp_path, "a.txt")
    with pytest.raises(UnreadableList):
        listed(tmp_path / "a.txt", quick(tmp_path))
    with pytest.raises(SourceForbidden):
        listed("-", quick(tmp_path))


def test_one_recording_is_a_list_of_one(tmp_path: Path) -> None:
    make(tmp_path, "a.mp3")
    assert [item.name for item in listed(tmp_path / "a.mp3", quick(tmp_path))] == ["a.mp3"]


def test_a_list_is_bounded(tmp_path: Path) -> None:
    make(tmp_path / "in", *(f"{number}.mp3" for number in range(5)))
    with pytest.raises(ListTooLong, match="STENO_BATCH__MAX_ITEMS"):
        listed(tmp_path / "in", quick(tmp_path, max_items=4))


# -- manifests ----------------------------------------------------------------------------------------------------------


def test_a_csv_manifest_lists_its_rows_with_their_options(tmp_path: Path) -> None:
    make(tmp_path / "m", "a.mp3", "sub/b.mp3")
    (tmp_path / "m/list.csv").write_text(
        "\ufeffsource;language;max_speakers;_note\na.mp3;fr;;hello\n\nsub/b.mp3;;3;\nhttps://example.org/c.mp3;;;\n"
    )
    a, b, c = listed(tmp_path / "m/list.csv", quick(tmp_path))
    assert a.source == str(tmp_path / "m/a.mp3")
    assert a.options == {"language": "fr"}
    assert a.line == 2
    assert b.options == {"max_speakers": "3"}
    assert b.version
    assert (c.source, c.line) == ("https://example.org/c.mp3", 5)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize(
    "text",
    [
        'sep=;\r\n"Source";Language\r\nséance.wav;fr\r\n',
        "SOURCE\tlanguage\r\nséance.wav\tfr\r\n",
        'language,"source"\nfr,séance.wav\n',
        '"source";"_a, b, c, d";"language"\nséance.wav;;fr\n',
        "sep=|\nsource|language\nséance.wav|fr",
    ],
)
def test_manifests_of_spreadsheets_are_read(tmp_path: Path, encoding: str, text: str) -> None:
    make(tmp_path, "séance.wav")
    (tmp_path / "list.csv").write_bytes(text.encode(encoding))
    (item,) = listed(tmp_path / "list.csv", quick(tmp_path), columns=("source", "language"))
    assert (item.name, item.options, item.source) == ("séance.wav", {"language": "fr"}, str(tmp_path / "séance.wav"))
    assert item.line == (3 if text.startswith("sep") else 2)
    assert item.version


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_lines_of_json_are_read_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "list.jsonl").write_bytes('{"source": "https://example.org/séance.wav"}\r\n'.encode(encoding))
    assert listed(tmp_path / "list.jsonl", quick(tmp_path))[0].name == "séance.wav"


def test_rows_that_cannot_be_taken_are_reported_with_their_line(tmp_path: Path) -> None:
    make(tmp_path, "a.mp3")
    (tmp_path / "list.csv").write_text("source,langauge\na.mp3,\n,fr\na.mp3,fr\na.mp3,,too,many\na.mp3,\n")
    found = refused(tmp_path / "list.csv", quick(tmp_path), columns=("source", "language"))
    assert [(entry.line, entry.message.split(";")[0].split(" as ")[0]) for entry in found] == [
        (3, "The row has no source"),
        (4, "'langauge' is not an option"),
        (5, "The row has 4 cells, the header 2"),
        (6, "The same recording and options"),
    ]


def test_a_jsonl_manifest_reports_lines_that_are_none(tmp_path: Path) -> None:
    make(tmp_path, "a.mp3")
    (tmp_path / "list.jsonl").write_text('{"source": "a.mp3", "formats": ["srt"], "name": "First"}\nnot json\n[1]\n{"id": 7}\n')
    (item,) = listed(tmp_path / "list.jsonl", quick(tmp_path))
    assert (item.name, item.options) == ("First", {"formats": ["srt"]})
    assert [entry.line for entry in refused(tmp_path / "list.jsonl", quick(tmp_path))] == [2, 3, 4]


def test_an_id_names_a_recording_whose_address_is_signed_anew(tmp_path: Path) -> None:
    for signature in ("one", "two"):
        (tmp_path / "list.csv").write_text(f"id,source\ncall-1,https://example.org/c.mp3?signature={signature}\n")
        (item,) = listed(tmp_path / "list.csv", quick(tmp_path))
        assert item.origin.endswith("list.csv#call-1")
        assert item.source.endswith(signature)


@pytest.mark.parametrize("content", ["name\na\n", "", "source,source\na.mp3,b.mp3\n"])
def test_a_manifest_without_sources_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "list.csv").write_text(content)
    with pytest.raises(InputError, match=r"column|empty"):
        listed(tmp_path / "list.csv", quick(tmp_path))


def test_a_manifest_from_the_web_names_no_files_of_this_machine(settings: StenoSettings, server: FaultServer) -> None:
    server.answers["/list.csv"] = lambda handler, turn: handler.reply(200, b"source\n/etc/hostname\nfile:///etc/x.mp3\nb.mp3\n")
    found = list(entries(server.url("/list.csv"), settings))
    assert [isinstance(entry, Refused) for entry in found] == [True, True, False]
    assert isinstance(found[2], Item)
    assert found[2].source == server.url("/b.mp3")


# -- feeds --------------------------------------------------------------------------------------------------------------


def feed(server: FaultServer, path: str, text: str) -> str:
    server.answers[path] = lambda handler, turn: handler.reply(200, text.encode(), content_type="application/rss+xml")
    return server.url(path)


def test_a_feed_lists_its_episodes_by_title_and_guid(settings: StenoSettings, server: FaultServer) -> None:
    address = feed(server, "/feed", RSS.format(next="", token="one"))
    first, second = listed(address, settings)
    assert first.name == "One / two: the start.mp3"
    assert first.source == server.url("/media/audio.mp3?token=one")
    assert first.origin == f"{address}#ep-1"
    assert first.modified == 1714975200
    assert second.name == "Second.mp3"
    (elsewhere,) = refused(address, settings)
    assert "http" in elsewhere.message


def test_an_episode_stays_the_same_when_its_address_is_signed_anew(settings: StenoSettings, server: FaultServer) -> None:
    versions = []
    for token in ("one", "two"):
        address = feed(server, "/feed", RSS.format(next="", token=token))
        versions.append([(item.origin, item.version) for item in listed(address, settings)])
    assert versions[0] == versions[1]


WILD = """
<?xml version="1.0" encoding="utf-8"?>
<rss version="2.0" xmlns:media="http://search.yahoo.com/mrss/" xmlns:podcast="https://podcastindex.org/namespace/1.0">
<channel><title>Caf&eacute; &nbsp; Q&A</title>
<item><title>Q&A</title><guid>1</guid><enclosure url="/1.mp3?a=1&b=2" type="Audio/MPEG; charset=x"/></item>
<item><title>Octets</title><guid>2</guid><enclosure url="2.mp3" type="application/octet-stream"/></item>
<item><title>No type</title><guid>3</guid><enclosure url="/download/3"/></item>
<item><title>Media</title><guid>4</guid><media:group><media:content url="4.jpg" medium="image"/>
  <media:content url="4.mp4" type="VIDEO/MP4"/></media:group></item>
<item><title>Alternate</title><guid>5</guid><podcast:alternateEnclosure type="audio/opus">
  <podcast:source uri="https://example.org/5.opus"/></podcast:alternateEnclosure></item>
<item><title>Picture</title><guid>6</guid><enclosure url="/6.jpg" type="image/jpeg"/></item>
<item><title>Letter</title><guid>7</guid><enclosure url="/7.pdf"/></item>
<item><title>Post</title><guid>8</guid></item>
</channel></rss>"""
RSS_1 = """<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns="http://purl.org/rss/1.0/"
  xmlns:enc="http://purl.oclc.org/net/rss_2.0/enc#"><channel rdf:about="x"><title>t</title></channel>
<item rdf:about="http://h/1"><title>One</title><enc:enclosure rdf:resource="https://h/1.mp3" enc:type="audio/mpeg"/></item></rdf:RDF>"""
JSON_FEED = """{"version": "https://jsonfeed.org/version/1.1", "title": "t", "items": [
  {"id": "1", "title": "One", "date_published": "2024-05-06T06:00:00Z", "attachments": [{"url": "/1.m4a", "mime_type": "audio/x-m4a"}]},
  {"id": "2", "title": "Post"}]}"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_feeds_are_taken_as_they_are_in_the_wild(settings: StenoSettings, server: FaultServer, encoding: str) -> None:
    title = "Q & A" if encoding == "utf-16" else "Q&A"
    text = WILD if encoding == "utf-8" else WILD.strip().replace("utf-8", encoding.removesuffix("-sig")).replace("Q&A", title)
    server.answers["/show/feed"] = lambda handler, turn: handler.reply(200, text.encode(encoding), content_type="text/xml")
    found = list(entries(server.url("/show/feed"), settings))
    assert {entry.name: entry.source for entry in found if isinstance(entry, Item)} == {
        f"{title}.mp3": server.url("/1.mp3?a=1&b=2"),
        "Octets.mp3": server.url("/show/2.mp3"),
        "No type": server.url("/download/3"),
        "Media.mp4": server.url("/show/4.mp4"),
        "Alternate.opus": "https://example.org/5.opus",
    }
    assert {entry.name: entry.message for entry in found if isinstance(entry, Left)} == {
        "Picture": "the enclosure is not a recording: image/jpeg",
        "Letter": "the enclosure is not a recording: 7.pdf",
        "Post": "a post without a recording",
    }


@pytest.mark.parametrize(("text", "source"), [(RSS_1, "https://h/1.mp3"), (JSON_FEED, "/1.m4a")])
def test_rss_1_and_json_are_feeds_too(settings: StenoSettings, server: FaultServer, text: str, source: str) -> None:
    (episode,) = listed(feed(server, "/feed", text), settings)
    assert (episode.name.partition(".")[0], episode.source) == ("One", source if "://" in source else server.url(source))


def test_a_later_page_that_cannot_be_read_is_a_row(settings: StenoSettings, server: FaultServer) -> None:
    link = '<atom:link rel="next" href="/gone"/>'
    found = list(entries(feed(server, "/feed", RSS.format(next=link, token="1")), settings))
    assert len([entry for entry in found if isinstance(entry, Item)]) == 2
    assert [entry.name for entry in found if isinstance(entry, Refused)] == ["Elsewhere", "page 2 of the feed"]


def test_a_feed_that_stops_in_the_middle_says_that_episodes_are_missing(settings: StenoSettings, server: FaultServer) -> None:
    text = RSS.format(next="", token="1")
    found = list(entries(feed(server, "/feed", text[: text.index("<item><title>Elsewhere")]), settings))
    assert len([entry for entry in found if isinstance(entry, Item)]) == 2
    (end,) = [entry for entry in found if isinstance(entry, Refused)]
    assert (end.name, end.later) == ("end of the feed", True)
    assert not [entry for entry in entries(feed(server, "/atom", ATOM), settings) if isinstance(entry, Refused)]


def test_a_second_recording_of_a_post_is_a_row_unless_it_is_another_format(
    settings: StenoSettings, server: FaultServer
) -> None:
    several = "".join(f'<enclosure url="/{name}" type="audio/mpeg"/>' for name in ("one.mp3", "one.ogg", "two.mp3"))
    found = list(
        entries(feed(server, "/feed", f"<rss><channel><item><title>A</title>{several}</item></channel></rss>"), settings)
    )
    assert [(type(entry), entry.name) for entry in found] == [(Item, "A.mp3"), (Left, "two.mp3")]


def test_an_item_of_a_json_feed_that_is_none_is_a_row_and_the_others_are_taken(
    settings: StenoSettings, server: FaultServer
) -> None:
    text = JSON_FEED.replace('"items": [', '"items": ["none", {"id": "x", "attachments": [3]},')
    found = list(entries(feed(server, "/feed", text), settings))
    assert [type(entry) for entry in found[:3]] == [Refused, Refused, Item]


def test_a_guid_that_two_episodes_share_names_neither(settings: StenoSettings, server: FaultServer) -> None:
    item = '<item><title>{}</title><guid>g</guid><enclosure url="/{}" type="audio/mpeg"/></item>'
    pairs = [("One", "a.mp3?n=1"), ("Two", "a.mp3?n=2"), ("One", "a.mp3?n=3"), ("Three", "b.mp3")]
    address = feed(server, "/feed", f"<rss><channel>{''.join(item.format(*pair) for pair in pairs)}</channel></rss>")
    one, two, signed_anew, three = [entry.origin for entry in listed(address, settings)]
    assert len({one, two, three}) == 3
    assert signed_anew == one
    later = [("Four", "c.mp3"), *pairs[:2]]
    feed(server, "/feed", f"<rss><channel>{''.join(item.format(*pair) for pair in later)}</channel></rss>")
    assert [entry.origin for entry in listed(address, settings)][1:] == [one, two]


@pytest.mark.parametrize("above", ["\n\n", "\ufeff\n", ",,\r\n", "  \n\t\n"])
def test_lines_without_a_cell_above_the_header_are_passed_over(tmp_path: Path, above: str) -> None:
    (tmp_path / "list.csv").write_text(f"{above}source,name\nhttps://example.org/a.mp3,A\n", encoding="utf-8")
    (item,) = listed(tmp_path / "list.csv", quick(tmp_path))
    assert (item.name, item.line) == ("A", above.count("\n") + 2)


def test_an_id_of_two_recordings_is_refused_for_the_second(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("id,source\n1,https://example.org/a.mp3\n1,https://example.org/b.mp3\n")
    (left,) = refused(tmp_path / "list.csv", quick(tmp_path))
    assert (left.line, "Line 2 gives the same id" in left.message) == (3, True)


def test_the_pages_of_a_feed_are_followed_once_each(settings: StenoSettings, server: FaultServer) -> None:
    link = '<atom:link rel="next" href="{}"/>'
    address = feed(server, "/feed", RSS.format(next=link.format("/feed?page=2"), token="1"))
    pages = {
        "/feed": RSS.format(next=link.format("/more"), token="1"),
        "/more": RSS.format(next=link.format("/feed"), token="2"),
    }
    for path, text in pages.items():
        feed(server, path, text)
    assert len(listed(address, settings)) == 4
    assert len(server.requests) == 2


def test_atom_is_a_feed_too(settings: StenoSettings, server: FaultServer) -> None:
    (episode,) = listed(feed(server, "/atom.xml", ATOM), settings)
    assert (episode.name, episode.source) == ("Atom one.m4a", "https://example.org/1.m4a")


@pytest.mark.parametrize(
    "text",
    [
        "<html><body>Welcome</body></html>",
        "not xml",
        "",
        "<rss><channel><item></channel>",
        '<!DOCTYPE rss [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><rss><channel><item><title>&b;</title></item></channel></rss>',
        '<!DOCTYPE rss SYSTEM "file:///etc/passwd"><rss/>',
        "<rss>" + "<a>" * 5000,
    ],
)
def test_what_is_no_feed_or_a_hostile_one_is_refused(settings: StenoSettings, server: FaultServer, text: str) -> None:
    with pytest.raises(InputError, match=r"feed|empty"):
        listed(feed(server, "/feed", text), settings)


def test_a_json_feed_of_any_depth_is_refused_in_a_sentence(settings: StenoSettings, server: FaultServer) -> None:
    deep = '{"version": "https://jsonfeed.org/version/1.1", "items": [' + '{"a":' * 50_000 + "1" + "}" * 50_000 + "]}"
    with pytest.raises(UnreadableList, match="not a podcast feed"):
        listed(feed(server, "/feed", deep), settings)


def test_a_feed_whose_pages_never_end_is_given_up(
    settings: StenoSettings, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "_MAX_PAGES", 5)
    for page in range(8):
        link = f'<atom:link rel="next" href="/feed{page + 1}"/>'
        feed(server, f"/feed{page}", RSS.format(next=link, token=str(page)).replace("ep-1", f"ep-1-{page}"))
    found = listed(server.url("/feed0"), settings)
    assert [path for path, _ in server.requests] == [f"/feed{page}" for page in range(5)]
    assert len({item.origin for item in found}) == 5 + 1


def test_a_feed_above_the_cap_is_refused(tmp_path: Path, server: FaultServer) -> None:
    settings = make_settings(tmp_path, allow_hosts=(server.host,)).model_copy(
        update={"batch": BatchSettings(max_list_bytes=2000)}
    )
    with pytest.raises(SourceTooLarge):
        listed(feed(server, "/feed", RSS.format(next="<!-- " + "x" * 5000 + " -->", token="")), settings)


def test_a_feed_on_a_private_address_is_refused(tmp_path: Path, server: FaultServer) -> None:
    with pytest.raises(SourceForbidden):
        listed(feed(server, "/feed", RSS.format(next="", token="")), make_settings(tmp_path))


# -- object stores ------------------------------------------------------------------------------------------------------


@pytest.fixture
def objects(tmp_path: Path, s3: S3Settings, moto_endpoint: str, bucket: str) -> StenoSettings:
    client = s3_client(moto_endpoint)
    for key in ("in/a.mp3", "in/deep/b.wav", "in/deep/.hidden.wav", "in/notes.txt", "in/2024-05/c.mp3", "inside.mp3"):
        client.put_object(Bucket=bucket, Key=key, Body=key.encode())
    return make_settings(tmp_path, s3=s3)


@pytest.mark.parametrize(
    ("url", "recursive", "names"),
    [
        ("in", False, ["a.mp3"]),
        ("in/", True, ["a.mp3", "b.wav", "c.mp3"]),
        ("", False, ["inside.mp3"]),
        ("in/*.mp3", False, ["a.mp3"]),
        ("in/**/*.mp3", False, ["a.mp3", "c.mp3"]),
        ("in/2024-*/?.mp3", False, ["c.mp3"]),
        ("in/[ab].mp3", False, ["a.mp3"]),
        ("in/a.mp3", False, ["a.mp3"]),
    ],
)
def test_a_bucket_lists_a_prefix_or_a_glob(
    objects: StenoSettings, bucket: str, url: str, recursive: bool, names: list[str]
) -> None:
    found = listed(f"s3://{bucket}/{url}", objects, recursive=recursive)
    assert sorted(item.name for item in found) == names
    assert all(item.source.startswith(f"s3://{bucket}/") and item.version and item.modified for item in found)


ODD = ("Ep #12.wav", "Ep #13.wav", "what?.wav", "50%25 [a].wav", "a*b.wav", "dot. .wav", "ü ß.wav")


def test_names_of_objects_are_taken_as_they_are(
    objects: StenoSettings, bucket: str, moto_endpoint: str, tmp_path: Path
) -> None:
    for name in ODD:
        s3_client(moto_endpoint).put_object(Bucket=bucket, Key=f"show [2024]/{name}", Body=name.encode())
    folder = f"s3://{bucket}/show [2024]"
    found = listed(folder, objects)
    assert sorted(item.name for item in found) == sorted(ODD)
    for number, item in enumerate(found):
        (tmp_path / str(number)).mkdir()
        assert fetch_source(item.source, tmp_path / str(number), objects).path.read_bytes() == item.name.encode()
    assert len({output_stem(item.source) for item in found}) == len(ODD)
    assert [item.name for item in listed(f"{folder}/Ep*.wav", objects)] == ["Ep #12.wav", "Ep #13.wav"]
    assert [item.name for item in listed(f"{folder}/a*b.wav", objects)] == ["a*b.wav"]
    assert [item.name for item in listed(f"{folder}/what?.wav", objects)] == ["what?.wav"]
    assert [item.name for item in listed(f"{folder}/Ep #1[3].wav", objects)] == ["Ep #13.wav"]


def test_names_of_files_are_taken_as_they_are(tmp_path: Path) -> None:
    make(tmp_path / "show [2024]", *ODD, "new\nline.wav")
    folder = tmp_path / "show [2024]"
    assert len(listed(folder, quick(tmp_path))) == len(ODD) + 1
    assert [item.name for item in listed(f"{folder}/Ep*.wav", quick(tmp_path))] == ["Ep #12.wav", "Ep #13.wav"]
    assert [item.name for item in listed(f"{folder}/a*b.wav", quick(tmp_path))] == ["a*b.wav"]
    assert [item.name for item in listed(f"{tmp_path}/show [[]2024[]]/Ep*", quick(tmp_path))] == ["Ep #12.wav", "Ep #13.wav"]


def test_objects_that_their_name_does_not_tell_are_looked_into(
    objects: StenoSettings, bucket: str, moto_endpoint: str, tmp_path: Path
) -> None:
    sound = recording(tmp_path / "known.wav", seconds=0.5).read_bytes()
    for key, body in {"call": sound, "memo.xyz": sound, "page": b"<html></html>", "list.json": b"{}"}.items():
        s3_client(moto_endpoint).put_object(Bucket=bucket, Key=f"unknown/{key}", Body=body)
    found = list(entries(f"s3://{bucket}/unknown", objects))
    assert [entry.name for entry in found if isinstance(entry, Item)] == ["call", "memo.xyz"]
    assert [entry.name for entry in found if isinstance(entry, Left)] == ["list.json", "page"]


def test_objects_keep_their_folder_and_change_with_their_content(
    objects: StenoSettings, bucket: str, moto_endpoint: str
) -> None:
    (before,) = listed(f"s3://{bucket}/in/deep", objects)
    assert listed(f"s3://{bucket}/in", objects, recursive=True)[-1].folder == "deep"
    s3_client(moto_endpoint).put_object(Bucket=bucket, Key="in/deep/b.wav", Body=b"changed")
    (after,) = listed(f"s3://{bucket}/in/deep", objects)
    assert (after.origin, after.version == before.version) == (before.origin, False)


def test_a_bucket_is_listed_page_by_page(
    objects: StenoSettings, bucket: str, moto_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.storage.s3._PAGE", 3)
    client = s3_client(moto_endpoint)
    for number in range(10):
        client.put_object(Bucket=bucket, Key=f"many/{number}.mp3", Body=b"x")
    assert [item.name for item in listed(f"s3://{bucket}/many", objects)] == [f"{number}.mp3" for number in range(10)]


def test_nothing_at_a_prefix_is_an_error(objects: StenoSettings, bucket: str) -> None:
    with pytest.raises(SourceNotFound, match="Nothing"):
        listed(f"s3://{bucket}/gone", objects)
    with pytest.raises(SourceNotFound):
        listed("s3://no-such-bucket/in", objects)


def test_a_manifest_in_a_bucket_names_objects_beside_it(objects: StenoSettings, bucket: str, moto_endpoint: str) -> None:
    s3_client(moto_endpoint).put_object(Bucket=bucket, Key="in/list.csv", Body=b"source\na.mp3\ngone.mp3\n")
    here, gone = listed(f"s3://{bucket}/in/list.csv", objects)
    assert here.source == f"s3://{bucket}/in/a.mp3"
    assert here.version
    assert not gone.version  # its run says what is wrong


def test_other_protocols_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceForbidden):
        listed("ftp://example.org/in", quick(tmp_path))
