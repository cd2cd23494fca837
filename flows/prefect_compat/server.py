"""Prefect's server as ours: its database written in turn, time asleep given back, fewer events stored, and routes of our own."""

from __future__ import annotations

from typing import Any


def make_app(*, ephemeral: bool) -> Any:
    """The ASGI app of Prefect's API, pages and services. The only one of its process; an `ephemeral` one is for one command."""
    from flows.prefect_compat.automations import forgive_sleep
    from flows.prefect_compat.database import write_in_turn

    write_in_turn()
    forgive_sleep()
    from prefect.server.api.server import create_app

    from flows.prefect_compat.erasing import store_fewer_events
    from flows.prefect_compat.pruning import add_to

    stored = store_fewer_events()
    app: Any = create_app(ephemeral=ephemeral, final=True)
    add_to(app, stored)
    return app
