"""`make screenshots`: Prefect's pages as an operator sees them, and ours, taken with a real browser from a real `steno up` that asks for its password.

Real runs of the real models on the phone conversation inside pyannote.audio. The failed diarization is failed on purpose,
by a compute backend (`failing`, below) that refuses to cluster while a file is there. Needs Chromium (Debian: `chromium`).
"""

from __future__ import annotations

import argparse
import base64
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from bench.demo import sample_recording
from infra.artifacts import StageOutcome
from infra.compute import get_store
from infra.jobs import ProgressSink, StageJob
from infra.local import LocalCompute
from infra.settings import StenoSettings
from stenoflow.errors import TransientError

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "images"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--use-gl=swiftshader", "--enable-webgl", "--ignore-gpu-blocklist"]
"""The run's graph is drawn with WebGL, which a machine without a GPU has in software only."""
SIZE = {"width": 1200, "height": 800}
FAILURE = "STENO_BENCH_FAILURE"
"""Names the file whose being there makes clustering fail."""


class FailingCompute(LocalCompute):
    """This machine, except that diarization's last stage fails while the file is there."""

    async def run(self, job: StageJob, progress: ProgressSink) -> StageOutcome:
        if job.stage == "cluster" and os.path.exists(os.environ[FAILURE]):  # noqa: ASYNC240, PTH110
            raise TransientError("The worker of the diarize stage was lost.")
        return await super().run(job, progress)


def failing(settings: StenoSettings) -> FailingCompute:
    return FailingCompute(get_store(settings))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=TARGET, help="Folder for the pictures.")
    parser.add_argument("--page", action="store_true", help="Take the pictures of our own page alone.")
    parser.add_argument("--models-dir", default=".cache/models", help="Joined and converted weights, kept between runs.")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="screenshots-") as folder:
        home = Path(folder)
        with Up(home, Path(options.models_dir).absolute()) as up, browser() as page:
            gallery = Gallery(up, page, options.output, home)
            gallery.own_page() if options.page else gallery.take_all()
    return 0


class Up:
    """A real `steno up` with authentication on, and its API as the pages use it."""

    def __init__(self, home: Path, models: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.page_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.url, self.home = f"http://127.0.0.1:{port}", home
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("STENO_", "PREFECT_"))}
        env = inherited | {
            "PYTHONPATH": str(ROOT),
            "PREFECT_HOME": str(home / "prefect"),
            "STENO_HOME": str(home / "steno"),
            "STENO_MODELS_DIR": str(models),
            "STENO_OFFLINE": "1",
            "STENO_COMPUTE__BACKEND": "bench.screenshots:failing",
            "STENO_DEPLOY__AUTH": "true",
            "STENO_API__PORT": self.page_url.rpartition(":")[2],
            "STENO_REPORT__PREVIEW_WORDS": "60",
            "STENO_DEPLOY__NIGHTLY_SOURCE": str(home / "recordings"),
            FAILURE: str(home / "fail"),
        }
        command = [sys.executable, "-m", "stenoflow.cli.main", "up", "--port", str(port)]
        self.said = home / "up.log"
        with self.said.open("wb") as log:
            self._process = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=home)

    def __enter__(self) -> Up:
        deadline = time.monotonic() + 300
        while "Ctrl-C stops everything" not in self.said.read_text():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"`steno up` did not start:\n{self.said.read_text()}")
            time.sleep(0.5)
        self.password = (self.home / "steno" / "prefect-auth").read_text().strip()
        found = self.call("POST", "/deployments/filter", limit=200)
        flows = {flow["id"]: flow["name"] for flow in self.call("POST", "/flows/filter", limit=200)}
        self.deployments = {f"{flows[one['flow_id']]}/{one['name']}": one["id"] for one in found}
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(120)

    def call(self, method: str, path: str, **body: Any) -> Any:
        authorization = base64.b64encode(self.password.encode()).decode()
        with httpx.Client(trust_env=False, timeout=60, headers={"Authorization": f"Basic {authorization}"}) as client:
            answer = client.request(method, f"{self.url}/api{path}", json=body or None)
        answer.raise_for_status()
        return answer.json()

    def run(self, deployment: str, request: dict[str, Any]) -> str:
        """The id of a run that has ended."""
        path = f"/deployments/{self.deployments[deployment]}/create_flow_run"
        run = str(self.call("POST", path, parameters={"request": request}, state={"type": "SCHEDULED"})["id"])
        while self.call("GET", f"/flow_runs/{run}")["state_type"] not in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            time.sleep(1)
        return run

    def artifact(self, run: str, key: str) -> str:
        """The id of the run's artifact whose key begins so."""
        found = self.call("POST", "/artifacts/filter", artifacts={"flow_run_id": {"any_": [run]}}, limit=200)
        return str(next(artifact["id"] for artifact in found if artifact["key"].startswith(key)))


@contextmanager
def browser() -> Iterator[Page]:
    """A page of a headless Chromium of the machine's own."""
    from playwright.sync_api import sync_playwright

    if CHROMIUM is None:
        raise SystemExit("Chromium is needed for screenshots: apt-get install chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = chromium.new_page(viewport=SIZE)  # type: ignore[arg-type]
        page.set_default_timeout(120_000)
        yield page
        chromium.close()


class Gallery:
    """Makes the runs and takes the pictures."""

    def __init__(self, up: Up, page: Page, output: Path, home: Path) -> None:
        self.up = up
        self.page = page
        self.output = output
        self.home = home

    def take_all(self) -> None:
        recordings = self.home / "recordings"
        recordings.mkdir()
        conversation = recordings / "conversation.wav"
        shutil.copy(sample_recording(), conversation)
        self.log_in()
        self.picture("deployments", "/deployments", "folder-or-feed", width=1500, height=720)
        form = f"/deployments/deployment/{self.up.deployments['transcribe/one-recording']}/run"
        self.picture("form", form, "Computing: keep artifacts for", height=2000)
        run = self.up.run("transcribe/one-recording", self.request(conversation))
        # The graph is drawn on a canvas, which nothing announces.
        self.picture("run", f"/runs/flow-run/{run}", "fetch started", height=1100, pause=6000)
        report = f"/artifacts/artifact/{self.up.artifact(run, 'transcription-report')}"
        self.picture("report", report, "Beginning", height=640, theme="light")
        self.picture("report-dark", report, "Beginning", height=640)
        self.failed(conversation)
        self.batch(recordings, conversation)
        self.own_page()  # last: what it transcribes would be reused in the others' pictures

    def own_page(self) -> None:
        """A conversation whose speakers have names, in light, in dark and on a phone."""
        with httpx.Client(base_url=self.up.page_url, trust_env=False, timeout=300) as client:
            with sample_recording().open("rb") as file:
                form = {"model": "tiny.en", "diarize": "true", "name": "Telephone call"}
                job = client.post("/transcribes?wait=60", files={"file": file}, data=form).raise_for_status().json()["job_id"]
            while (state := client.get(f"/transcribes/{job}?wait=30").json())["status"] != "completed":
                assert state["status"] in ("queued", "downloading", "processing"), state
            names = [{"op": "name", "speaker": f"SPEAKER_0{i}", "name": name} for i, name in enumerate(("Diane", "Sheila"))]
            client.patch(f"/transcribes/{job}/edits", json={"base": 0, "operations": names}).raise_for_status()
        phone = {"width": 390, "height": 800}
        for name, path, scheme, size in (
            ("page", f"/jobs/{job}", "light", SIZE),
            ("page-dark", f"/jobs/{job}", "dark", SIZE),
            ("page-phone", f"/jobs/{job}", "light", phone),
            ("page-start", "/", "light", SIZE),
        ):
            self.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            self.page.set_viewport_size(size)  # type: ignore[arg-type]
            self.page.goto(f"{self.up.page_url}{path}", wait_until="networkidle")
            if path != "/":
                self.page.get_by_text("Chicago").first.click()
                self.page.get_by_role("button", name="Pause", exact=True).click()
            self.page.wait_for_timeout(500)
            self.page.screenshot(path=self.output / f"{name}.png")
        self.page.emulate_media(color_scheme="dark")
        self.page.set_viewport_size(SIZE)  # type: ignore[arg-type]

    def log_in(self) -> None:
        """With the password that `steno up` made, as its guide says."""
        self.page.goto(self.up.url, wait_until="networkidle")
        self.page.locator("input[type=password]").fill(self.up.password)
        self.page.keyboard.press("Enter")
        self.page.locator("input[type=password]").wait_for(state="detached")

    def request(self, source: Path, **options: Any) -> dict[str, Any]:
        return {"source": str(source), "model": "tiny.en", "output_dir": str(self.home / "transcripts"), **options}

    def failed(self, conversation: Path) -> None:
        """A diarization that fails."""
        (self.home / "fail").touch()
        run = self.up.run("transcribe/one-recording", self.request(conversation, max_speakers=3))
        report = f"/artifacts/artifact/{self.up.artifact(run, 'transcription-report')}"
        self.picture("diarization-failed-report", report, "Written without speakers", height=640)
        (self.home / "fail").unlink()

    def batch(self, recordings: Path, conversation: Path) -> None:
        """A batch with a recording that was done, one that is new and one that is none."""
        shutil.copy(conversation, recordings / "interview.wav")
        (recordings / "broken.mp3").write_bytes(b"this is no recording" * 400)
        options = {"model": "tiny.en"}
        request = {"source": str(recordings), "options": options, "output_dir": str(self.home / "transcripts")}
        run = self.up.run("batch/folder-or-feed", request)
        self.picture("batch-report", f"/artifacts/artifact/{self.up.artifact(run, 'batch-')}", "broken.mp3", height=700)

    def picture(
        self,
        name: str,
        path: str,
        shows: str,
        *,
        width: int = SIZE["width"],
        height: int = SIZE["height"],
        pause: int = 3000,
        theme: str = "dark",
    ) -> None:
        """`shows` is a text that the page has once it is there."""
        self.page.goto(f"{self.up.url}{path}", wait_until="networkidle")
        self.page.evaluate("theme => document.documentElement.classList.replace('dark', theme)", theme)  # as its settings do
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.get_by_text(shows).first.wait_for()
        self.page.wait_for_timeout(pause)
        target = self.output / f"{name}.png"
        self.page.screenshot(path=target)
        self.page.set_viewport_size(SIZE)  # type: ignore[arg-type]
        print(f"{target.name}: {target.stat().st_size / 1e3:.0f} kB", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
