"""Glossaries at the API: each owner's own, chosen by name."""

from __future__ import annotations

import pytest

from stenoflow.client import ClientError, StenoClient
from stenoflow.client.errors import RequestRefused
from tests.api.guarded import GuardedApi

pytestmark = pytest.mark.slow


def test_a_glossary_is_kept_used_and_removed_by_its_owner_alone(guarded_api: GuardedApi) -> None:
    live = guarded_api.live
    live.deployed.plan()
    with StenoClient(live.url, guarded_api.key) as client, StenoClient(live.url, guarded_api.other) as other:
        kept = client.set_glossary("acme", "Stenoflow\ngood morning => Good evening\n")
        assert (kept.hotwords, kept.replacements) == (1, 1)
        assert [one.name for one in client.glossaries()] == ["acme"] and other.glossaries() == []
        job = client.submit(live.file(seconds=4), glossary="acme", diarize=True)
        assert client.wait(job).status == "completed"
        assert client.transcript(job).segments[0].text.startswith("Good evening")
        for refused in (
            lambda: other.submit(live.file(seconds=0.4), glossary="acme"),
            lambda: client.set_glossary("acme", "=> x"),
            lambda: client.set_glossary("a b", "x"),
        ):
            with pytest.raises(RequestRefused):
                refused()
        with pytest.raises(ClientError) as unknown:
            other.remove_glossary("acme")
        assert unknown.value.reason == "unknown_glossary"
        client.remove_glossary("acme")
        assert client.glossaries() == []
