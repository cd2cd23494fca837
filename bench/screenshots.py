"""`make screenshots`: Prefect's pages as an operator sees them, taken from a real server, worker and browser.

Real runs of the real models on the phone conversation inside pyannote.audio. The failed diarization is failed on purpose,
by a compute backend (`failing`, below) that refuses to cluster while a file is there. Needs Chromium (Debian: `chromium`).
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.demo import sample_recording
from infra.artifacts import StageOutcome
from infra.compute import get_store
from infra.jobs import ProgressSink, StageJob
from infra.local import LocalCompute
from infra.settings import StenoSettings
from speech.errors import TransientError
from tests.deployed import Deployed

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

TARGET = Path(__file__).parents[1] / "docs" / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--use-gl=swiftshader", "--enable-webgl", "--ignore-gpu-blocklist"]
"""The run's graph is drawn with WebGL, which a machine without a GPU has in software only."""
SIZE = {"width": 1360, "height": 900}
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
    parser.add_argument("--models-dir", default=".cache/models", help="Joined and converted weights, kept between runs.")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="screenshots-") as folder:
        home = Path(folder)
        failure = home / "fail"
        environment = {
            "STENO_COMPUTE__BACKEND": "bench.screenshots:failing",
            FAILURE: str(failure),
            "STENO_MODELS_DIR": str(Path(options.models_dir).absolute()),
            "STENO_OFFLINE": "1",
            "STENO_DEPLOY__NIGHTLY_SOURCE": str(home / "recordings"),
        }
        with Deployed.start(home / "deployment", environment, ui=True) as deployed, browser() as page:
            Gallery(deployed, page, options.output, home, failure).take_all()
    return 0


@contextmanager
def browser() -> Iterator[Page]:
    """A page of a headless Chromium of the machine's own."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise SystemExit("Chromium is needed for screenshots: apt-get install chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        page = chromium.new_page(viewport=SIZE, device_scale_factor=1.25)  # type: ignore[arg-type]
        page.set_default_timeout(60_000)
        yield page
        chromium.close()


class Gallery:
    """Makes the runs and takes the pictures."""

    def __init__(self, deployed: Deployed, page: Page, output: Path, home: Path, failure: Path) -> None:
        self.deployed = deployed
        self.page = page
        self.output = output
        self.home = home
        self.failure = failure
        self.ui = deployed.url.removesuffix("/api")

    def take_all(self) -> None:
        recordings = self.home / "recordings"
        recordings.mkdir()
        conversation = recordings / "conversation.wav"
        shutil.copy(sample_recording(), conversation)
        self.form()
        run = self.deployed.submit(self.request(conversation))
        self.deployed.wait(run, {"COMPLETED"}, timeout=300)
        self.run_page(run, "run")
        self.artifact(run, "transcription-report", "report")
        self.failed_and_retried(conversation)
        self.batch(recordings, conversation)

    def request(self, source: Path, **options: Any) -> dict[str, Any]:
        return {"source": str(source), "model": "tiny.en", "output_dir": str(self.home / "transcripts"), **options}

    def form(self) -> None:
        """The parameter form of an ad-hoc run."""
        self.go(f"/deployments/deployment/{self.deployed.deployments['transcribe/one-recording']}/run")
        self.page.get_by_text("Run Name").first.wait_for()
        self.page.wait_for_timeout(2000)
        self.shoot("form", height=2000)

    def run_page(self, run: str, name: str) -> None:
        """A run with its graph."""
        self.go(f"/runs/flow-run/{run}")
        self.page.wait_for_timeout(6000)  # the graph is drawn on a canvas, which nothing announces
        self.shoot(name)

    def artifact(self, run: str, key: str, name: str) -> None:
        found = [artifact for artifact in self.deployed.artifacts(run) if artifact["key"] == key]
        assert found, f"run {run} has no artifact {key}"
        self.go(f"/artifacts/artifact/{found[-1]['id']}")
        self.page.get_by_text("Flow Run", exact=True).first.wait_for()
        self.page.wait_for_timeout(3000)
        self.shoot(name, height=1200)

    def failed_and_retried(self, conversation: Path) -> None:
        """A diarization that fails, and the same run after its Retry button was pressed."""
        self.failure.touch()
        run = self.deployed.submit(self.request(conversation, max_speakers=3))
        self.deployed.wait(run, {"FAILED"}, timeout=300)
        self.run_page(run, "diarization-failed")
        self.artifact(run, "transcription-report", "diarization-failed-report")
        self.failure.unlink()
        self.go(f"/runs/flow-run/{run}")
        self.page.get_by_role("button", name="Retry").first.click()
        dialog: Locator = self.page.get_by_role("dialog")
        dialog.get_by_role("button", name="Retry").click()
        self.deployed.wait(run, {"COMPLETED"}, timeout=300)
        self.run_page(run, "diarization-retried")
        self.artifact(run, "transcription-report", "diarization-retried-report")

    def batch(self, recordings: Path, conversation: Path) -> None:
        """A batch with a recording that was done, one that is new and one that is none."""
        shutil.copy(conversation, recordings / "interview.wav")
        (recordings / "broken.mp3").write_bytes(b"this is no recording" * 400)
        request = {
            "source": str(recordings),
            "options": {"model": "tiny.en"},
            "output_dir": str(self.home / "transcripts"),
        }
        run = self.deployed.submit(deployment="batch/folder-or-feed", parameters={"request": request})
        self.deployed.wait(run, timeout=400)
        self.run_page(run, "batch")
        self.artifact(run, "batch", "batch-report")

    def go(self, path: str) -> None:
        self.page.goto(f"{self.ui}{path}", wait_until="networkidle")

    def shoot(self, name: str, height: int = SIZE["height"]) -> None:
        self.page.set_viewport_size({"width": SIZE["width"], "height": height})
        self.page.wait_for_timeout(1000)
        path = self.output / f"{name}.png"
        self.page.screenshot(path=path)
        self.page.set_viewport_size(SIZE)  # type: ignore[arg-type]
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
