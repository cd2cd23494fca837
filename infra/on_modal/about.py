"""What is known of the deployed app before one of its containers is started: its code, which gated models it can fetch, and
for which languages it was warmed.

`steno modal deploy` notes it, and so does each container that loads models, by its own token; `steno modal warm` the languages.
Synchronous; never raises.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infra.on_modal.contract import ABOUT, WARMED, About, calls_name, code_fingerprint
from infra.settings import ModalSettings
from speech.stored import parsed

if TYPE_CHECKING:
    import modal


def read(settings: ModalSettings) -> About | None:
    """None where nothing was noted, or Modal cannot be asked."""
    with contextlib.suppress(Exception):
        noted = _notes(settings).get(ABOUT)
        return parsed(About, noted) if noted else None
    return None


def write(settings: ModalSettings, models_dir: Path, *, token: bool) -> None:
    """Note what this code can fetch with this process's token, if the containers have it."""
    with contextlib.suppress(Exception):
        about = About(code=code_fingerprint(), token=token, gated=gated_models(models_dir) if token else ())
        _notes(settings).update({ABOUT: about.model_dump_json()})


def expect(settings: ModalSettings, languages: Sequence[str]) -> None:
    """Note whose aligners containers load before their first call. Without any, those noted before stay."""
    if languages:
        with contextlib.suppress(Exception):
            _notes(settings).update({WARMED: list(languages)})


def expected(settings: ModalSettings) -> tuple[str, ...]:
    """The languages noted; none where Modal cannot be asked."""
    with contextlib.suppress(Exception):
        return tuple(_notes(settings).get(WARMED, ()))
    return ()


def gated_models(models_dir: Path) -> tuple[str, ...]:
    """Those of the registry that can be fetched from here."""
    from speech.host import Host
    from speech.registry import MODELS

    host = Host(models_dir, offline=False)
    return tuple(name for name, model in MODELS.items() if model.gated and host.can_use(name))


def _notes(settings: ModalSettings) -> modal.Dict:
    import modal

    return modal.Dict.from_name(calls_name(settings), environment_name=settings.environment, create_if_missing=True)
