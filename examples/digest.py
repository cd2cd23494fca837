"""Your own Prefect flow that has a deployed Stenoflow transcribe: the run is a child of yours in Prefect's UI.

    export PREFECT_API_URL=http://127.0.0.1:4200/api
    python examples/digest.py /recordings/meeting.m4a /transcripts

The paths are those of the machine where the worker runs, and here of this one, too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from prefect import flow
from prefect.deployments import run_deployment


@flow(name="digest", log_prints=True)
def digest(source: str, folder: str) -> str:
    """The first sentence of every speaker."""
    request = {"source": source, "output_dir": folder, "formats": ["json"], "overwrite": True}
    run = run_deployment("transcribe/one-recording", parameters={"request": request}, timeout=4 * 3600)
    if run.state is None or not run.state.is_completed():
        raise RuntimeError(f"{source} was not transcribed: {run.state}")  # its report has the reason; *Retry* goes on there
    transcript = json.loads((Path(folder) / f"{Path(source).stem}.json").read_text())
    first: dict[str, str] = {}
    for segment in transcript["segments"]:
        first.setdefault(segment["speaker"], segment["text"].strip())
    return "\n".join(f"{speaker}: {text}" for speaker, text in sorted(first.items()))


if __name__ == "__main__":
    print(digest(*sys.argv[1:3]))
