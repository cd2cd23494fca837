"""A client as they were written for the WhisperX service on Modal: `requests`, no key, no `final`, polling by `?job_id=`.

    older_client.py --base-url URL --audio-url URL
    older_client.py --base-url URL --wav-file FILE [--session-id ID] [--times N]

It knows nothing of this project, and prints what it got as JSON: for a URL the job, then what deleting it said; for a file the
answer to each time that the whole of it was sent.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import sys
import time
from typing import Any

import numpy as np
import requests
import soundfile

HEADERS = {"Content-Type": "application/json"}


def by_url(args: argparse.Namespace) -> dict[str, Any]:
    """Submit, poll until it has ended, delete."""
    address = f"{args.base_url}/transcribes"
    body = {"audio_url": args.audio_url, "batch_size": 16, "align": True, "diarize": args.diarize} | options(args)
    submitted = requests.post(address, json=body, headers=HEADERS, timeout=60)
    submitted.raise_for_status()
    named = {"job_id": submitted.json()["job_id"]}
    while True:
        polled = requests.get(address, params=named, timeout=60)
        polled.raise_for_status()
        job: dict[str, Any] = polled.json()
        if job["status"] == "failed":
            raise RuntimeError(job.get("error", "unknown"))
        if job["status"] == "completed":
            break
        assert 0 <= job.get("progress", 0) <= 100 and isinstance(job.get("message", ""), str)
        time.sleep(0.5)
    deleted = requests.delete(address, params=named, timeout=60)
    deleted.raise_for_status()
    return {"job": job, "deleted": deleted.json()}


def by_chunk(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The samples of the whole file in one body, as often as is asked for."""
    samples, rate = soundfile.read(args.wav_file)
    assert rate == 16_000
    if samples.ndim > 1:
        samples = samples.mean(axis=1)
    buffer = io.BytesIO()
    np.save(buffer, samples.astype(args.dtype))
    body = {
        "audio_chunk": base64.b64encode(buffer.getvalue()).decode(),
        "language": args.language,
        "batch_size": 16,
        "align": True,
        "diarize": args.diarize,
    }
    body |= options(args) | ({"session_id": args.session_id} if args.session_id else {})
    answers = []
    for _ in range(args.times):
        answer = requests.post(f"{args.base_url}/transcribes", json=body, headers=HEADERS, timeout=600)
        answer.raise_for_status()
        answers.append(answer.json())
    return answers


def options(args: argparse.Namespace) -> dict[str, Any]:
    given = {name: getattr(args, name) for name in ("language", "min_speakers", "max_speakers")}
    return {name: value for name, value in given.items() if value is not None}


def shown(result: dict[str, Any]) -> str:
    """What those clients read of a result, the way they do."""
    lines = [f"{one['start']:.2f} {one['end']:.2f} {one['text']} {one.get('speaker', '')}" for one in result["segments"]]
    for word in result.get("word_segments") or []:
        lines.append(f"{word.get('start', 0):.2f} {word.get('end', 0):.2f} {word['word']} {word.get('score', 0):.3f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("base-url", "audio-url", "wav-file", "session-id", "language"):
        parser.add_argument(f"--{name}")
    for name in ("min-speakers", "max-speakers"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--diarize", action="store_true")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    found = by_url(args) if args.audio_url else by_chunk(args)
    for result in [found["job"]] if isinstance(found, dict) else found:
        print(shown(result), file=sys.stderr)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
