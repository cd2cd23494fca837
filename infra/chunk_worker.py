"""The process that transcribes the API's audio chunks: models loaded once, one chunk at a time, until the API's end closes.

`python -m infra.chunk_worker FD`, where FD is one end of a socket pair; see `infra.chunk_messages`. It keeps nothing of a
session: the state comes with a chunk and goes back with the answer, so that any worker can go on with any session. It starts
with a greeting that names the model and options, and answers when the models are loaded.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import signal
import socket
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

from infra.chunk_messages import Garbled, Message, packed, read
from infra.jobs import engine_required
from infra.telemetry import hush
from speech.schema import RuntimeOptions
from stenoflow.errors import InputError, Retry, StenoError

if TYPE_CHECKING:
    from speech.streaming import Answer

_log = logging.getLogger(__name__)


def main() -> None:
    """Serve one connection, and end with it."""
    # Ctrl-C reaches the whole group; when to end is for the API to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    hush()
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    connection = socket.socket(fileno=int(sys.argv[1]))
    with connection, connection.makefile("rb") as incoming, contextlib.suppress(EOFError, ConnectionError, Garbled):

        def exactly(count: int) -> bytes:
            data = incoming.read(count)
            if len(data) < count:
                raise EOFError
            return data

        greeting = read(exactly)
        runtime = RuntimeOptions.model_validate(greeting.header["runtime"])
        ready = answered(lambda: _ready(greeting.header["params"], runtime))
        connection.sendall(packed(*ready))
        while "error" not in ready.header:
            asked = read(exactly)
            connection.sendall(packed(*answered(lambda asked=asked: _chunk(asked, runtime))))


def answered(work: Any) -> Message:
    """What `work()` returns, or its error: one sentence and its kind, never a word of what was said."""
    try:
        with engine_required():
            message: Message = work()
            return message
    except StenoError as error:
        kind = "input" if isinstance(error, InputError) else "again" if error.retry is not Retry.NEVER else "service"
        happened = error.happened if error.cure else ""
        return Message({"error": error.code, "kind": kind, "detail": error.message, "happened": happened})
    except Exception as error:
        # Where, not what: an exception's text may quote the transcript.
        places = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
        _log.error("unexpected %s at %s", type(error).__name__, " < ".join(reversed(places[-4:])))
        return Message(
            {
                "error": "internal",
                "kind": "defect",
                "detail": "The chunk could not be transcribed; the service has logged the details.",
                "happened": "",
            }
        )


def _ready(params: dict[str, Any], runtime: RuntimeOptions) -> Message:
    from speech.loaded import using_models
    from speech.session import ChunkParams
    from speech.streaming import warm_up

    began = time.perf_counter()
    with using_models("loading"):
        warm_up(ChunkParams.model_validate(params), runtime)
    return Message({"ready": True, "pid": os.getpid(), "seconds": round(time.perf_counter() - began, 3)})


def _chunk(asked: Message, runtime: RuntimeOptions) -> Message:
    """The parts of the question: the chunk as `.npy`; its session's state, empty at its beginning. Those of the answer: the text
    as JSON; the session's state."""
    import numpy as np

    from speech.loaded import using_models
    from speech.session import ChunkParams, Session
    from speech.streaming import transcribe_chunk

    params = ChunkParams.model_validate(asked.header["params"])
    samples = _floats(np.load(io.BytesIO(asked.parts[0]), allow_pickle=False))
    session = Session.from_bytes(asked.parts[1]) if asked.parts[1] else Session(params)
    with using_models("transcription"):
        answer = transcribe_chunk(samples, session, params, runtime, final=asked.header["final"])
    return Message({"ok": True}, (_rendered(answer), answer.session.to_bytes()))


def _floats(samples: Any) -> Any:
    """An array of any shape as (samples,) of float32; 16-bit integers as their fractions of full scale."""
    import numpy as np

    scale = 32768.0 if samples.dtype.kind == "i" else 1.0
    return (samples.reshape(-1) / scale).astype(np.float32)


def _rendered(answer: Answer) -> bytes:
    """As jobs render a transcript: `language`, `segments`, `word_segments`."""
    from speech.formats.options import RenderOptions
    from speech.formats.whisperx_json import json as rendered
    from stenoflow.types import Transcript

    language, duration = answer.session.language or "", answer.session.elapsed
    whole = rendered(
        Transcript(language=language, duration=duration, segments=answer.segments, word_segments=answer.words), RenderOptions()
    )
    content = {name: value for name, value in json.loads(whole).items() if name in ("segments", "word_segments")}
    return json.dumps(content | {"language": answer.session.language}, ensure_ascii=False).encode()


if __name__ == "__main__":
    main()
