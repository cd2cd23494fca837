"""Your own Prefect flow that transcribes: how long each person spoke, as a table in Prefect's UI.

python examples/talk_time.py meeting.m4a interview.mp3
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_table_artifact

from stenoflow import TransientError, transcribe


def may_pass(_task: object, _run: object, state: object) -> bool:
    """Retry what may succeed the next time; a recording that cannot be read stays unreadable."""
    try:
        state.result()  # type: ignore[attr-defined]
    except TransientError:
        return True
    except Exception:
        return False
    return True


@task(task_run_name="{recording}", retries=2, retry_delay_seconds=30, retry_condition_fn=may_pass)
def talk_time(recording: str) -> dict[str, float]:
    """Seconds by speaker. The transcript stays in Stenoflow's store: running it again computes nothing."""
    seconds: Counter[str] = Counter()
    for turn in transcribe(recording).turns:
        seconds[turn.speaker] += turn.end - turn.start
    return dict(seconds)


@flow(name="talk-time", log_prints=True)
def talk_times(recordings: list[str]) -> list[dict[str, str | float]]:
    rows: list[dict[str, str | float]] = [
        {"recording": Path(recording).name, "speaker": speaker, "seconds": round(seconds, 1)}
        for recording in recordings
        for speaker, seconds in talk_time(recording).items()
    ]
    create_table_artifact(key="talk-time", table=rows)
    return rows


if __name__ == "__main__":
    for row in talk_times(sys.argv[1:]):
        print(f"{row['recording']}  {row['speaker']}  {row['seconds']} s")
