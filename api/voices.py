"""Enrolled voices of callers: recordings become voiceprints in a process of its own, which decodes them and loads the models."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.auth import Caller
from api.cures import message_for_callers
from api.errors import Unavailable, Unprocessable
from infra.compute import get_store
from infra.settings import StenoSettings, get_settings
from infra.voices import consent_of, enrol, set_of_call
from speech.enrolled import EnrolledVoice, Voiceprint
from stenoflow import isolated
from stenoflow.jobs import Voice

_TIME = 300.0
"""Seconds that the process may take; it usually takes five, most of them for loading."""
_at_work = asyncio.Semaphore(2)
"""Processes at a time: each loads the models."""


@dataclass(frozen=True)
class Known:
    """Voices that come with a call: names, and a recording of each."""

    names: tuple[str, ...] = ()
    references: tuple[bytes, ...] = ()

    @property
    def digest(self) -> str:
        """What was given, as a hash; empty for nothing."""
        if not self.names:
            return ""
        parts = [part for name, audio in zip(self.names, self.references, strict=True) for part in (name.encode(), audio)]
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()

    async def enrolled(self, caller: Caller, settings: StenoSettings) -> str | None:
        """The set that holds them, in the store until the job is deleted. Raises Unprocessable and Unavailable."""
        if not self.names:
            return None
        store = await asyncio.to_thread(get_store)
        await asyncio.to_thread(store.scratch.mkdir, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="voices-", dir=store.scratch) as folder:
            paths = [Path(folder) / str(number) for number in range(len(self.references))]
            for path, content in zip(paths, self.references, strict=True):
                await asyncio.to_thread(path.write_bytes, content)
            labels = [f"The sample of known speaker {number}" for number in range(1, len(paths) + 1)]
            prints = await voiceprints(paths, labels, settings, alone=True)
        name, consent = set_of_call(), consent_of("Came with a call.", caller.name)
        for person, print_ in zip(self.names, prints, strict=True):
            await asyncio.to_thread(enrol, store, name, person, [print_], consent)
        return name


UNKNOWN = Known()


async def voiceprints(
    paths: Sequence[Path], names: Sequence[str], settings: StenoSettings, model: str = "auto", *, alone: bool = False
) -> list[Voiceprint]:
    """What each of the recordings says of a voice. Raises Unprocessable for what cannot be enrolled, and Unavailable."""
    asked = {"paths": [str(path) for path in paths], "names": list(names), "model": model, "alone": alone}
    async with _at_work:
        process = await asyncio.create_subprocess_exec(
            *isolated.command("infra.enrolment"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | get_settings.environment(),
        )
        try:
            said, _ = await asyncio.wait_for(process.communicate(json.dumps(asked).encode()), _TIME)
        except BaseException as error:
            if process.returncode is None:
                process.kill()
                await process.wait()
            if not isinstance(error, TimeoutError):
                raise
            raise Unavailable("Enrolling the voice took too long; send a shorter recording.", retry_after=5.0) from None
    if process.returncode:
        raise Unavailable("The process that enrols voices ended early; try again in a moment.", retry_after=5.0)
    answer: dict[str, Any] = json.loads(said)
    if "code" not in answer:
        return [Voiceprint.model_validate(found) for found in answer["voiceprints"]]
    detail = message_for_callers(answer["code"], answer["message"], answer["happened"])
    if not answer["refused"]:
        raise Unavailable(detail, code=answer["code"])
    field = "file" if not alone else "known_speaker_references"
    raise Unprocessable(detail, code=answer["code"], errors=[{"field": field, "message": detail, "code": answer["code"]}])


def shown(voice: EnrolledVoice) -> Voice:
    """The voice as its owner sees it: without the embeddings."""
    first, last = voice.consents[0], voice.consents[-1]
    return Voice(
        voice_id=voice.id,
        name=voice.name,
        seconds=round(sum(print_.seconds for print_ in voice.prints), 3),
        recordings=len(voice.prints),
        models=sorted({print_.model.partition("@")[0] for print_ in voice.prints}),
        consent=last.note,
        enrolled_by=last.by,
        created_at=first.at,
        updated_at=last.at,
    )
