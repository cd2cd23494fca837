"""A run's glossary: its hot words join those of the request, its replacements go to the merge."""

from __future__ import annotations

import asyncio

from flows.request import TranscribeRequest
from infra.compute import get_store
from infra.glossaries import find
from speech.glossary import Replacement


async def with_glossary(request: TranscribeRequest, owner: str) -> tuple[TranscribeRequest, tuple[Replacement, ...]]:
    """The request with the owner's glossary in effect, and what is to be replaced. Raises UnknownGlossary.

    ASR's key has the hot words themselves, so that a glossary with the same ones, or with replacements alone, decodes nothing again.
    """
    if request.glossary is None:
        return request, ()
    glossary = await asyncio.to_thread(find, get_store(), owner, request.glossary)
    hotwords = " ".join(filter(None, [request.hotwords, *glossary.hotwords])) or None
    return request.model_copy(update={"hotwords": hotwords}), glossary.replacements
