"""What a caller of the API can do about an error of the engine, whose own cures name options of the command line and settings.

error.happened  "Unknown model 'larg'."          said at every door
error.cure      "give one of …, or a folder"     the command line's, and the operator's in logs and reports
CURES           "`GET /v1/models` lists …"       said here
"""

from __future__ import annotations

from stenoflow.errors import StenoError

CURES: dict[str, str] = {
    "unknown_model": "`GET /v1/models` lists the available models.",
    "model_unavailable": "Choose another model: `GET /v1/models` lists the available models.",
    "gated_model": "Choose another model: `GET /v1/models` lists the available models.",
    "unknown_glossary": "`GET /glossaries` lists yours.",
    "truncated_media": "Send the complete recording again.",
    "media_too_long": "Split the recording.",
    "source_too_large": "Send a smaller recording.",
    "source_denied": "Give an address that this service can read, or send the recording itself.",
    "source_forbidden": "Give an address on a public host, or send the recording itself.",
    "out_of_memory": "Use a smaller model.",
    "stage_timeout": "Use a smaller model.",
}
"""By the code of an error. What only the operator can do is not said to callers."""


def of(error: StenoError) -> str:
    """The error as callers get it."""
    return message_for_callers(error.code, error.message, error.happened if error.cure else None)


def message_for_callers(code: str, message: str, happened: str | None) -> str:
    """The error as callers get it; `happened` is empty where the message names no cure of another door."""
    return " ".join(filter(None, [happened, CURES.get(code)])) if happened else message
