"""The page: one HTML shell, one style sheet and one script, bundled by `make page` from `src/`. All that it shows comes from the API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Body, Request
from fastapi.responses import FileResponse, PlainTextResponse, Response

from api import auth, session
from api.errors import Unauthenticated
from infra.settings import get_settings

router = APIRouter(include_in_schema=False)

_HERE = Path(__file__).parent
_SCRIPT = _HERE / "build" / "page.js"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; media-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@router.get("/")
@router.get("/jobs/{job_id}")
async def page() -> Response:
    if not _SCRIPT.exists():
        return PlainTextResponse("The page has not been built in this checkout: run `make page`.\n", 503)
    return FileResponse(_HERE / "page.html", headers=_HEADERS)


@router.get("/web/page.css")
async def style() -> Response:
    return FileResponse(_HERE / "page.css", headers=_HEADERS)


@router.get("/web/page.js")
async def script() -> Response:
    if not _SCRIPT.exists():
        return Response(status_code=404)
    return FileResponse(_SCRIPT, headers=_HEADERS, media_type="text/javascript")


@router.post("/session")
async def sign_in(request: Request, key: Annotated[str, Body(embed=True, max_length=200)]) -> Response:
    """Exchange a key for a cookie. Raises Unauthenticated."""
    found = await auth.keyring(request, get_settings()).find(key.strip())
    if found is None:
        raise Unauthenticated("This API key is unknown, expired or revoked.")
    answer = Response(status_code=204)
    session.start(answer, request, found)
    return answer


@router.delete("/session")
async def sign_out() -> Response:
    answer = Response(status_code=204)
    session.end(answer)
    return answer
