"""A web application that has Stenoflow transcribe what its users upload.

    steno up --api &
    uvicorn examples.web_app:app --port 8000
    curl -F file=@talk.mp3 http://127.0.0.1:8000/recordings

The browser polls `/recordings/{job}`; your own login decides who may.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, UploadFile

from stenoflow import AsyncStenoClient, ClientError


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One client for all requests. Its address and key are read from STENO_API_URL and STENO_API_KEY."""
    async with AsyncStenoClient() as app.state.steno:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/recordings", status_code=202)
async def upload(file: UploadFile) -> dict[str, str]:
    try:
        job = await app.state.steno.submit(file.file, name=file.filename, diarize=True)
    except ClientError as error:
        raise HTTPException(502, error.message) from error
    return {"job": str(job.job_id)}


@app.get("/recordings/{job}")
async def show(job: str) -> dict[str, Any]:
    try:
        found = await app.state.steno.job(job)
        if found.status != "completed":
            return {"status": found.status, "percent": found.progress}
        transcript = await app.state.steno.transcript(job)
    except ClientError as error:
        raise HTTPException(404 if error.status == 404 else 502, error.message) from error
    lines = [{"speaker": each.speaker, "start": each.start, "text": each.text} for each in transcript.segments]
    return {"status": "completed", "lines": lines}
