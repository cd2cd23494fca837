"""What the client does, step by step: requests, when they are made again, what their answers mean."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from stenoflow.client import errors
from stenoflow.client.errors import (
    ClientError,
    JobConflict,
    JobDeleted,
    RequestRefused,
    ServiceBroken,
    ServiceUnavailable,
)
from stenoflow.client.options import BINARY
from stenoflow.client.steps import Call, Send, Sleep, Steps
from stenoflow.client.uploads import Recording, address_of, encoded_chunk, upload_of
from stenoflow.edits import EditResult, Edits, Operation, Peaks, Revisions, SegmentPage
from stenoflow.jobs import (
    ChunkResult,
    GlossaryInfo,
    GlossaryList,
    Health,
    Job,
    JobAccepted,
    JobList,
    JobRemoved,
    Voice,
    VoiceList,
)
from stenoflow.types import Transcript

M = TypeVar("M", bound=BaseModel)

LONGEST_PAUSE = 60.0
"""Seconds; a service that wants a longer one is not waited for."""
FIRST_CONTACT = 15.0
"""Seconds of patience with a service that has never answered: its address may be wrong."""
_UPLOAD = 600.0
_CHUNK = 660.0
"""Seconds until a chunk's answer: the service may first load its models."""
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_HOPELESS = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)


class Core:
    """The operations of both clients."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._answered = False

    # -- requests -----------------------------------------------------------------------------------------------------

    def answer(self, call: Call) -> Steps[httpx.Response]:
        """The answer, once it is one; what passes is waited for. Raises ClientError."""
        failed_at: float | None = None
        attempt, ambiguous = 0, False
        while True:
            try:
                response: httpx.Response = yield Send(call)
            except httpx.TransportError as error:
                failure = unreachable(error)
                sent = not isinstance(error, _NOT_SENT)
                again = not _hopeless(error) and not (sent and not call.repeatable) and _can_resend(call, sent)
                ambiguous |= sent
            else:
                self._answered = True
                if response.is_success:
                    return response
                failure = errors.of_response(response)
                again = response.status_code in (errors.PASSING if call.repeatable else errors.NOT_BEGUN)
                again = again and _can_resend(call, sent=True)
            failure.ambiguous = ambiguous
            now = time.monotonic()
            failed_at = now if failed_at is None else failed_at
            pause = self.pause(attempt, failure)
            if not again or now - failed_at + pause > self._retry_seconds():
                raise failure
            attempt += 1
            yield Sleep(pause)

    def pause(self, attempt: int, failure: ClientError) -> float:
        """Seconds until the next attempt, with jitter; as long as the service says, if it does."""
        backoff: float = min(0.5 * 2 ** min(attempt, 4), 8.0) * random.uniform(0.5, 1.0)
        asked = failure.retry_after
        if asked is None:
            return backoff
        return asked + random.uniform(0.0, 0.5) if asked <= LONGEST_PAUSE else float("inf")

    def _retry_seconds(self) -> float:
        return self.patience if self._answered else min(self.patience, FIRST_CONTACT)

    def _model(self, call: Call, model: type[M]) -> Steps[M]:
        response = yield from self.answer(call)
        return parsed(response, model)

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def submit(
        self, source: Recording, name: str | None, idempotency_key: str | None, fields: Mapping[str, Any]
    ) -> Steps[JobAccepted]:
        # Of its own for each submission, so that one whose answer is lost makes no second job.
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        if (address := address_of(source)) is not None:
            body = {"audio_url": address, **_given({"name": name, **fields})}
            return (yield from self._model(Call("POST", "/transcribes", headers=headers, json=body), JobAccepted))
        upload = upload_of(source, name, fields)
        call = Call("POST", "/transcribes", headers=headers, upload=upload, timeout=_UPLOAD)
        return (yield from self._model(call, JobAccepted))

    def job(self, job_id: str, wait: float = 0.0) -> Steps[Job]:
        call = Call("GET", path_of(job_id), params={"wait": round(wait, 3)} if wait else {}, timeout=60.0 + wait)
        return (yield from self._model(call, Job))

    def page(self, filters: Mapping[str, Any], limit: int, cursor: str | None) -> Steps[JobList]:
        params = {name: value for name, value in filters.items() if value is not None}
        if "metadata" in params:
            params["metadata"] = [f"{key}={value}" for key, value in params["metadata"].items()]
        for name in ("created_after", "created_before"):
            if name in params:
                params[name] = params[name].isoformat()
        params |= {"limit": limit} | ({"cursor": cursor} if cursor else {})
        return (yield from self._model(Call("GET", "/transcribes", params=params), JobList))

    def retry(self, job_id: str, from_: str | None, changes: Mapping[str, Any]) -> Steps[JobAccepted]:
        body = dict(changes) | ({"from": from_} if from_ else {})
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        try:
            return (yield from self._model(Call("POST", f"{path_of(job_id)}/retry", headers=headers, json=body), JobAccepted))
        except JobConflict as error:
            if not (error.ambiguous and error.reason == "run_under_way"):
                raise
        # The attempt whose answer was lost has set it going.
        job = yield from self.job(job_id)
        return JobAccepted(job_id=job.job_id, status=job.status, message=job.message)

    def delete(self, job_id: str) -> Steps[JobRemoved]:
        try:
            return (yield from self._model(Call("DELETE", path_of(job_id)), JobRemoved))
        except JobDeleted as error:
            if not error.ambiguous:
                raise
        return JobRemoved(message="The job was removed.", job_id=job_id)

    # -- results ------------------------------------------------------------------------------------------------------

    def text(self, job_id: str, format_: str, revision: int | None = None) -> Steps[str]:
        if format_ in BINARY:
            raise RequestRefused(f"{format_} is not text; write it to a file with `save`.")
        return (yield from self.file(job_id, format_, revision)).decode()

    def file(self, job_id: str, format_: str, revision: int | None = None) -> Steps[bytes]:
        response = yield from self.answer(Call("GET", f"{path_of(job_id)}.{format_}", params=_given({"revision": revision})))
        return response.content

    def transcript(self, job_id: str) -> Steps[Transcript]:
        return (yield from self._model(Call("GET", f"{path_of(job_id)}.json"), Transcript))

    # -- corrections --------------------------------------------------------------------------------------------------

    def segments(self, job_id: str, first: int, limit: int, revision: int | None) -> Steps[SegmentPage]:
        params = _given({"first": first, "limit": limit, "revision": revision})
        return (yield from self._model(Call("GET", f"{path_of(job_id)}/segments", params=params), SegmentPage))

    def edit(self, job_id: str, base: int, operations: Sequence[Operation]) -> Steps[EditResult]:
        body = Edits(base=base, operations=tuple(operations)).model_dump(mode="json")
        # Made twice, a correction would be two.
        call = Call("PATCH", f"{path_of(job_id)}/edits", json=body, repeatable=False)
        return (yield from self._model(call, EditResult))

    def revisions(self, job_id: str) -> Steps[Revisions]:
        return (yield from self._model(Call("GET", f"{path_of(job_id)}/revisions"), Revisions))

    def difference(self, job_id: str, revision: int, since: int) -> Steps[EditResult]:
        call = Call("GET", f"{path_of(job_id)}/revisions/{revision}", params={"since": since})
        return (yield from self._model(call, EditResult))

    def audio(self, job_id: str) -> Steps[bytes]:
        response = yield from self.answer(Call("GET", f"{path_of(job_id)}/audio"))
        return response.content

    def peaks(self, job_id: str) -> Steps[Peaks]:
        return (yield from self._model(Call("GET", f"{path_of(job_id)}/peaks", timeout=300.0), Peaks))

    # -- voices -------------------------------------------------------------------------------------------------------

    def enrol_voice(self, name: str, source: Recording, consent: str, diarization_model: str | None) -> Steps[Voice]:
        if address_of(source) is not None:
            raise RequestRefused("Send the recording of a voice itself; the service fetches none to enrol from.")
        fields = {"name": name, "consent": consent, "diarization_model": diarization_model}
        # Made twice, the recording would count twice.
        call = Call("POST", "/voices", upload=upload_of(source, None, fields), timeout=_UPLOAD, repeatable=False)
        return (yield from self._model(call, Voice))

    def voices(self) -> Steps[list[Voice]]:
        return (yield from self._model(Call("GET", "/voices"), VoiceList)).voices

    def forget_voice(self, voice_id: str) -> Steps[Voice]:
        if not voice_id:
            raise RequestRefused("The voice id is empty.")
        return (yield from self._model(Call("DELETE", f"/voices/{quote(voice_id, safe='')}"), Voice))

    # -- glossaries ---------------------------------------------------------------------------------------------------

    def set_glossary(self, name: str, text: str) -> Steps[GlossaryInfo]:
        return (yield from self._model(Call("PUT", _glossary(name), json={"text": text}), GlossaryInfo))

    def glossaries(self) -> Steps[list[GlossaryInfo]]:
        return (yield from self._model(Call("GET", "/glossaries"), GlossaryList)).glossaries

    def remove_glossary(self, name: str) -> Steps[None]:
        yield from self.answer(Call("DELETE", _glossary(name), repeatable=False))

    # -- without jobs -------------------------------------------------------------------------------------------------

    def chunk(
        self, samples: Any, session_id: str | None, options: Mapping[str, Any], *, final: bool | None
    ) -> Steps[ChunkResult]:
        body = {"audio_chunk": encoded_chunk(samples), **_given({**options, "final": final})}
        if session_id is not None:
            body["session_id"] = session_id
        # In a session it must not be heard twice; one that stands alone may.
        call = Call("POST", "/transcribes", json=body, timeout=_CHUNK, repeatable=session_id is None)
        return (yield from self._model(call, ChunkResult))

    def health(self) -> Steps[Health]:
        return (yield from self._model(Call("GET", "/health"), Health))


def _glossary(name: str) -> str:
    if not name:
        raise RequestRefused("The glossary's name is empty.")
    return f"/glossaries/{quote(name, safe='')}"


def path_of(job_id: str) -> str:
    if not job_id:
        raise RequestRefused("The job id is empty.")
    return f"/transcribes/{quote(job_id, safe='')}"


def parsed(response: httpx.Response, model: type[M]) -> M:
    """The answer as what it should be. Raises ServiceBroken."""
    try:
        return model.model_validate_json(response.content)
    except ValidationError:
        raise ServiceBroken(
            f"The answer is not a valid {model.__name__}; check that the address is Stenoflow's, and of this client's version.",
            status=response.status_code,
        ) from None


def unreachable(error: httpx.TransportError) -> ClientError:
    """What a transport's error means. Its text may quote an address, so only its class is reported."""
    if isinstance(error, _HOPELESS):
        return RequestRefused(f"The request cannot be sent ({type(error).__name__}); check the service's address and the key.")
    if _untrusted(error):
        return ServiceUnavailable("The service's certificate is not trusted; check the address, or give the CA as `verify`.")
    said = {
        httpx.ConnectError: "cannot be reached",
        httpx.ConnectTimeout: "did not accept the connection in time",
        httpx.ReadTimeout: "did not answer in time",
    }.get(type(error), "broke the connection")
    return ServiceUnavailable(f"The service {said} ({type(error).__name__}); is it running, and is its address right?")


def _hopeless(error: httpx.TransportError) -> bool:
    return isinstance(error, _HOPELESS) or _untrusted(error)


def _untrusted(error: httpx.TransportError) -> bool:
    return "CERTIFICATE_VERIFY_FAILED" in str(error)


def _can_resend(call: Call, sent: bool) -> bool:
    return not sent or call.upload is None or call.upload.seekable


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
