"""What a command does while its Prefect server starts: it loads what the stages need, and begins the first of them.

Decoding, segmentation and ASR of a local file that is new here are computed as the run would, on the same keys; the run's tasks
take over what has been begun (`infra.headstart`). So half a minute's transcript is there about when the server is.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from flows.pipeline import fetch_calls
from infra import compute, headstart
from infra.artifacts import StageOutcome
from infra.headstart import HeadStart
from infra.jobs import ProgressSink
from infra.local import LocalCompute
from infra.names import STDIN, scheme_of
from infra.progress import StageEvent
from infra.settings import StenoSettings
from infra.sharding import shard_count
from infra.sources import fetch_source
from tasks.calls import StageCall, asr_call, record_of, segment_call
from tasks.decoding import Recording, decode, known_audio
from tasks.decoding import record_of as record_of_decoded
from tasks.models import resolve

if TYPE_CHECKING:
    from flows.request import TranscribeRequest

_PATIENCE = 1.0
"""Seconds; half a minute is decoded and segmented in less."""


class Ahead:
    """The start of one recording, in a thread of its own from when it is made."""

    def __init__(
        self, request: TranscribeRequest, settings: StenoSettings, show: Callable[[StageEvent], object] = lambda _: None
    ) -> None:
        self.request = request
        self.settings = settings
        self._show = show
        self.head_start = HeadStart()
        self._imported = threading.Event()
        self._at_asr = threading.Event()
        headstart.use(self.head_start)
        threading.Thread(target=self._work, name="ahead").start()

    def wait(self) -> None:
        """Return when this process may import something else: the engine's libraries are imported (packages that import one another
        are no work for two threads), and ASR, which leaves the interpreter to others, has begun or is far away."""
        self._imported.wait()
        self._at_asr.wait(_PATIENCE)

    def stop(self) -> None:
        """Begin nothing more, and end what is at work."""
        headstart.use(None)

    def _work(self) -> None:
        try:
            compute.import_engine()
        finally:
            self._imported.set()
        # Whatever is wrong, the run meets it as well, and says so.
        with contextlib.suppress(Exception):
            self._begin()
        self._at_asr.set()

    def _begin(self) -> None:
        request = self.request
        models = resolve(self.settings, request)
        if request.redo_from or not compute.at_hand(models.asr, models.segmentation):
            return
        recording = self._recording()
        for part in recording.apart() or (recording,) if recording is not None else ():
            segmentation = self._computed(segment_call(part, models))
            self._at_asr.set()
            if segmentation is not None:
                self._computed(asr_call(part, segmentation.artifact, models, request))

    def _recording(self) -> Recording | None:
        """The decoded recording; None for what is not on this machine, or when the run is about to decode it."""
        request = self.request
        if request.source == STDIN or scheme_of(request.source) not in (None, "file"):
            return None
        call = fetch_calls(request, naming=request.voices)[0]
        store = compute.get_store(self.settings)
        store.scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="ahead-", dir=store.scratch) as folder:
            fetched = fetch_source(request.source, Path(folder), self.settings)
            record = record_of_decoded(fetched.sha256, call)
            if (audio := known_audio(record, call)) is None:
                begun = self.head_start.begin(record)
                if begun is None:
                    return None
                audio = begun.perform(lambda report: decode(fetched, Path(folder), call, self._shown("fetch", report)))
        return call.recording(audio, reused=False)

    def _computed(self, call: StageCall) -> StageOutcome | None:
        """The stage's outcome; None when it was computed before, is about to be, or is one to divide."""
        store = compute.get_store(self.settings)
        call = call.placed(self.settings, self.request.compute)
        job = call.job(compute.runtime_of(self.settings, call.batch_size))
        if shard_count(job, self.settings.shards) > 1 or store.read_record(job.key) is not None:
            return None
        begun = self.head_start.begin(job.key)
        if begun is None:
            return None

        def work(report: ProgressSink) -> StageOutcome:
            outcome = LocalCompute(store).compute(job, self._shown(call.shown_as, report))
            # As the run's task will write it again: a command that is killed before that loses nothing.
            store.write_record(job.key, record_of(job.key, outcome))
            return outcome

        outcome: StageOutcome = begun.perform(work)
        return outcome

    def _shown(self, stage: str, report: ProgressSink) -> ProgressSink:
        """A sink that shows what it reports."""

        def both(fraction: float) -> None:
            report(fraction)
            self._show(StageEvent("", stage, "progress", fraction))

        self._show(StageEvent("", stage, "started"))
        return both
