"""The page in a real browser: from a dropped file to corrected subtitles, whatever is reloaded or killed, and who is kept out."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench.demo import sample_recording
from tests.api.guarded import GuardedApi
from tests.api.live import LiveApi
from tests.browser import needs_browser, open_page

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = needs_browser
ROOT = Path(__file__).parents[2]
AXE = ROOT / "api" / "web" / "node_modules" / "axe-core" / "axe.min.js"
SEGMENT = "li.segment"


@pytest.fixture
def page(live_api: LiveApi) -> Iterator[Page]:
    with open_page(base_url=live_api.url) as page:
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: faults.append(line.text) if "Content Security Policy" in line.text else None)
        yield page
        assert not faults


@pytest.fixture(scope="module")
def conversation(served_api: LiveApi) -> Iterator[str]:
    """A job of a real conversation, as the models transcribe it."""
    served_api.deployed.plan(real=True)
    job = served_api.upload(sample_recording(), model="tiny.en", diarize="true", name="conversation")
    assert served_api.ended(job, 300)["status"] == "completed"
    yield job
    served_api.request("DELETE", f"/transcribes/{job}")


def until(true: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def audio(page: Page, member: str) -> Any:
    """What the player says of itself. Not by `wait_for_function`, whose polling evaluates text, which the page's policy forbids."""
    return page.evaluate(f"document.querySelector('audio').{member}")


def texts(live: LiveApi, job: str) -> list[str]:
    return [one["text"] for one in live.get(f"/transcribes/{job}/segments").json()["segments"]]


def saved(page: Page) -> None:
    page.get_by_text("All changes saved").wait_for()


def serious(page: Page) -> list[str]:
    """What axe-core finds that keeps people out."""
    page.evaluate(AXE.read_text())
    found: dict[str, Any] = page.evaluate("axe.run()")
    return [
        f"{one['id']}: {one['nodes'][0]['html']}" for one in found["violations"] if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.slow
def test_from_a_dropped_file_to_subtitles_with_the_right_names(live_api: LiveApi, page: Page, tmp_path: Path) -> None:
    live_api.deployed.plan(real=True)
    # A name of its own: the service is shared, and other tests' jobs are in its list.
    dropped = Path(shutil.copy(sample_recording(), tmp_path / f"dropped{sample_recording().suffix}"))
    page.goto("/")
    page.get_by_text("More options").click()
    page.get_by_label("Model").fill("tiny.en")
    page.locator("input[type=file]").set_input_files(str(dropped))
    page.get_by_role("progressbar", name=re.compile("Progress of dropped")).wait_for()
    page.get_by_role("link", name=re.compile("dropped")).first.click(timeout=240_000)
    page.locator(SEGMENT).first.wait_for()
    job = page.url.rpartition("/")[2]

    word = page.locator("[data-start]").nth(12)
    page.evaluate("""() => {
        const player = document.querySelector("audio");
        player.addEventListener("playing", () => { player.dataset.began = player.currentTime; }, { once: true });
    }""")
    word.click()
    until(lambda: audio(page, "dataset.began"))
    assert float(audio(page, "dataset.began")) == pytest.approx(float(word.get_attribute("data-start") or "nan"), abs=0.1)
    page.get_by_role("button", name="Pause", exact=True).click()

    before = texts(live_api, job)
    page.locator(SEGMENT).nth(1).get_by_role("button", name=re.compile("^Edit")).click()
    box = page.get_by_label("Text", exact=True)
    corrected = " ".join(["Three", "corrected", "words", *before[1].split()[3:]])
    box.fill(corrected)
    saved(page)
    until(lambda: texts(live_api, job)[1] == corrected)
    box.press("Enter")

    for label, name in (("Speaker 1", "Anna"), ("Speaker 2", "Ben & <i>Co</i>")):
        page.locator(".speakers").get_by_role("button", name=label).click()
        page.get_by_label(re.compile(f"^Name of {label}")).fill(name)
        page.get_by_role("button", name="Rename").click()
        page.locator(".speakers").get_by_role("button", name=name).wait_for()

    speaker = page.locator(SEGMENT).nth(0).locator(".speaker").inner_text()
    other = "Anna" if speaker != "Anna" else "Ben & <i>Co</i>"
    page.locator(SEGMENT).nth(0).locator(".speaker").click()
    page.get_by_role("group", name=re.compile("^Speaker")).get_by_role("button", name=other).click()
    until(lambda: page.locator(SEGMENT).nth(0).locator(".speaker").inner_text() == other)
    saved(page)

    page.reload()
    page.locator(SEGMENT).first.wait_for()
    assert page.locator(SEGMENT).nth(1).locator(".text").inner_text() == corrected
    with page.expect_download() as download:
        page.get_by_text("Download").click()
        page.get_by_role("link", name="srt").click()
    subtitles = download.value.path().read_text()
    assert "Anna" in subtitles
    assert "Ben & <i>Co</i>" in subtitles
    assert "SPEAKER" not in subtitles
    assert "Three corrected" in " ".join(subtitles.split())
    live_api.request("DELETE", f"/transcribes/{job}")


@pytest.mark.slow
def test_what_was_typed_survives_a_kill_and_a_reload(live_api: LiveApi, page: Page, conversation: str) -> None:
    page.goto(f"/jobs/{conversation}")
    page.locator(SEGMENT).nth(2).dblclick(position={"x": 300, "y": 20})
    box = page.get_by_label("Text", exact=True)
    typed = box.input_value()
    box.press("End")
    box.type(" one", delay=30)
    until(lambda: f"{typed} one" in texts(live_api, conversation))
    live_api.kill_api()
    box.type(" two", delay=30)
    page.get_by_text("Not saved yet").wait_for()
    page.close()
    live_api.start_api()
    assert f"{typed} one" in texts(live_api, conversation)
    again = page.context.new_page()
    again.goto(f"{live_api.url}/jobs/{conversation}")
    again.get_by_text("one two").wait_for()
    until(lambda: f"{typed} one two" in texts(live_api, conversation))
    again.get_by_role("button", name="Undo").click()
    until(lambda: f"{typed} one two" not in texts(live_api, conversation))
    again.get_by_role("button", name="Redo").click()
    until(lambda: f"{typed} one two" in texts(live_api, conversation))


@pytest.mark.slow
def test_two_tabs_end_with_both_corrections_or_say_what_was_not_saved(live_api: LiveApi, page: Page, conversation: str) -> None:
    page.goto(f"/jobs/{conversation}")
    page.locator(SEGMENT).first.wait_for()
    other = page.context.new_page()
    other.goto(f"/jobs/{conversation}")
    for tab, place, text in ((page, 0, "From the first tab."), (other, 1, "From the second tab.")):
        tab.locator(SEGMENT).nth(place).get_by_role("button", name=re.compile("^Edit")).click()
        tab.get_by_label("Text", exact=True).fill(text)
        tab.get_by_label("Text", exact=True).press("Enter")
        until(lambda text=text: text in texts(live_api, conversation))  # type: ignore[misc]
    assert texts(live_api, conversation)[:2] == ["From the first tab.", "From the second tab."]
    page.locator(SEGMENT).nth(1).get_by_role("button", name=re.compile("^Edit")).click()
    page.get_by_label("Text", exact=True).fill("Mine instead.")
    page.get_by_role("alert").get_by_text("Not saved: “Mine instead.”").wait_for()
    page.locator(SEGMENT).nth(1).get_by_text("From the second tab.").wait_for()
    other.close()


@pytest.mark.slow
def test_the_keyboard_alone_plays_reviews_finds_assigns_and_splits(live_api: LiveApi, page: Page, conversation: str) -> None:
    page.goto(f"/jobs/{conversation}")
    page.locator(SEGMENT).first.wait_for()
    page.locator(".waveform").wait_for()
    page.keyboard.press("Space")
    until(lambda: not audio(page, "paused"))
    page.keyboard.press("Space")
    until(lambda: audio(page, "paused"))
    before = audio(page, "currentTime")
    page.keyboard.press("ArrowRight")
    assert audio(page, "currentTime") == pytest.approx(before + 3, abs=0.2)
    page.keyboard.press("n")
    page.get_by_text(re.compile("Doubtful word|No doubtful words")).wait_for()
    page.locator(SEGMENT).nth(4).focus()
    count = page.locator(SEGMENT).count()
    page.keyboard.press("2")
    until(
        lambda: (
            page.locator(SEGMENT).nth(4).locator(".speaker").inner_text()
            == page.locator(".speakers button").nth(1).inner_text()
        )
    )
    page.locator(SEGMENT).nth(4).focus()
    page.keyboard.press("Enter")
    box = page.get_by_label("Text", exact=True)
    box.fill("First half second half")
    box.press("Home")
    for _ in range(2):
        box.press("Control+ArrowRight")
    was = audio(page, "paused")
    box.press("Escape")
    until(lambda: audio(page, "paused") != was)
    box.press("Shift+Enter")
    until(lambda: page.locator(SEGMENT).count() == count + 1)
    assert page.locator(SEGMENT).nth(4).locator(".text").inner_text() == "First half"
    page.keyboard.press("Control+f")
    page.get_by_label("Find").fill("half")
    page.get_by_label("Replace with").fill("part")
    page.get_by_text("2 in 2 segments").wait_for()
    page.get_by_role("button", name="Replace all").click()
    until(lambda: {"First part", "second part"} <= set(texts(live_api, conversation)))
    page.keyboard.press("Escape")
    page.locator(SEGMENT).nth(4).get_by_role("button", name="Quote").click()
    page.get_by_text("The quotation was copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert re.fullmatch(rf"“First part” — .+ \[0:00:\d\d\]\n{live_api.url}/jobs/{conversation}#t=[\d.]+", copied)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_on_any_page_keeps_people_out(live_api: LiveApi, conversation: str, scheme: str) -> None:
    with open_page(base_url=live_api.url, color_scheme=scheme, bypass_csp=True) as page:
        page.goto("/")
        page.locator(".job").first.wait_for()
        assert serious(page) == []
        page.goto(f"/jobs/{conversation}")
        page.locator(".waveform").wait_for()
        assert serious(page) == []
        page.locator(".speakers button").first.click()
        page.get_by_role("button", name="Find").click()
        page.locator(SEGMENT).nth(1).get_by_role("button", name=re.compile("^Edit")).click()
        assert serious(page) == []


@pytest.mark.slow
def test_markup_is_text_wherever_it_is(live_api: LiveApi, page: Page) -> None:
    markup = "<img src=x onerror=alert(1)>"
    job = live_api.submit({"audio_url": live_api.recording(), "name": markup, "diarize": True, "max_speakers": 1})
    live_api.ended(job)
    first = live_api.get(f"/transcribes/{job}/segments").json()["segments"][0]
    operations = [
        {"op": "text", "segment": first["id"], "text": markup},
        {"op": "name", "speaker": first["speaker"], "name": markup},
    ]
    live_api.request("PATCH", f"/transcribes/{job}/edits", json={"base": 0, "operations": operations}).raise_for_status()
    page.on("dialog", lambda dialog: pytest.fail(f"ran: {dialog.message}"))
    for path in ("/", f"/jobs/{job}"):
        page.goto(path)
        page.get_by_text(markup).first.wait_for()
        assert page.locator("img").count() == 0
        assert page.locator("script").count() == 1
    policy = live_api.get("/").headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'" in policy
    assert "unsafe" not in policy
    live_api.request("DELETE", f"/transcribes/{job}")


def test_where_keys_are_required_a_browser_signs_in_for_this_origin_only(guarded_api: GuardedApi) -> None:
    live = guarded_api.live
    with open_page(base_url=live.url) as page:
        page.goto("/")
        page.get_by_label("API key").fill("sk-steno-wrong")
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("alert").wait_for()
        page.get_by_label("API key").fill(guarded_api.key)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_text("Drop recordings here").wait_for()
        cookie = page.context.cookies()[0]
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert guarded_api.key not in cookie["value"]
    value = {"Authorization": "", "Cookie": f"{cookie['name']}={cookie['value']}"}
    del value["Authorization"]
    bare = live.headers.pop("Authorization")
    try:
        assert live.get("/transcribes", headers=value).status_code == 200
        assert live.get("/transcribes", headers={"Cookie": value["Cookie"][:-1] + "x"}).status_code == 401
        for foreign in ({"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://127.0.0.1:1"}):
            assert live.get("/transcribes", headers=value | foreign).status_code in (401, 403), foreign
            assert live.request("DELETE", "/transcribes/x", headers=value | foreign).status_code in (401, 403), foreign
        out = live.request("DELETE", "/session", headers=value)
        assert 'steno_session=""' in out.headers["set-cookie"]
    finally:
        live.headers["Authorization"] = bare
