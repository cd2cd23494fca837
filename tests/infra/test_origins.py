"""Which hosts, origins and pages `infra.origins` lets through to an application."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from infra.origins import HostName, Origin, Origins, host_names

OWN = "127.0.0.1:4200"
PAGE = "https://page.example.com"


async def _answer(request: Request) -> PlainTextResponse:
    return PlainTextResponse("done", headers={"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Credentials": "true"})


async def _echo(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text("open")
    await socket.close()


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = Starlette(
        routes=[
            Route("/", _answer, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
            WebSocketRoute("/ws", _echo),
        ]
    )
    hosts = host_names("0.0.0.0", ["steno.example.com"])
    return TestClient(
        Origins(app, hosts=hosts, origins=[PAGE], setting="STENO_TEST", expose=["Location"]), base_url="http://192.0.2.7:4200"
    )


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": "localhost"},
        {"host": "LOCALHOST:9"},
        {"host": "[::1]:4200"},
        {"host": "127.8.9.1"},
        {"host": "192.0.2.7"},  # the address that the connection came in at
        {"host": "steno.example.com"},
        {"host": "Steno.Example.Com.:443"},
        {"origin": f"http://{OWN}"},
        {"origin": "http://127.0.0.1", "host": "127.0.0.1:80"},
        {"origin": "https://steno.example.com", "host": "steno.example.com", "sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
        {"referer": f"http://{OWN}/runs?page=2"},
        {"origin": PAGE, "sec-fetch-site": "cross-site"},
    ],
)
def test_programs_and_own_pages_pass(client: TestClient, headers: dict[str, str]) -> None:
    for method in ("GET", "POST", "DELETE"):
        answer = client.request(method, "/", headers={"host": OWN, **headers})
        assert (answer.status_code, answer.text) == (200, "done")
        assert answer.headers.get("access-control-allow-origin") == headers.get("origin")
        assert "access-control-allow-credentials" not in answer.headers
        assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "host",
    [
        "rebind.evil.example",
        "127.0.0.1.evil.example:4200",
        "localhost.evil.example",
        "evil.example@127.0.0.1",
        "127.0.0.1:4200, evil.example",
        "0.0.0.0:4200",
        "2130706433:4200",
        "192.0.2.8",
        "",
        "127.0.0.1:",
    ],
)
def test_other_hosts_are_refused(client: TestClient, host: str) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        answer = client.request(method, "/", headers={"host": host})
        assert (answer.status_code, answer.json()["code"]) == (421, "host_refused")
        assert "STENO_TEST__ALLOWED_HOSTS" in answer.json()["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://127.0.0.1:9999"},  # another service of this machine
        {"origin": f"http://{OWN}.evil.example"},
        {"origin": f"http://{OWN}@evil.example"},
        {"origin": "https://page.example.com.evil.example"},
        {"origin": "http://page.example.com"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "origin": f"http://{OWN}"},
        {"referer": "https://evil.example/page"},
        {"referer": f"http://{OWN}@evil.example/"},
        {"referer": "about:blank"},
    ],
)
def test_other_pages_are_refused(client: TestClient, headers: dict[str, str]) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        answer = client.request(method, "/", headers={"host": OWN, **headers}, content="{}")
        assert (answer.status_code, answer.json()["code"]) == (403, "origin_refused")
        assert "access-control-allow-origin" not in answer.headers
    preflight = {"host": OWN, "access-control-request-method": "POST", **headers}
    if "origin" in headers:
        answer = client.options("/", headers=preflight)
        assert answer.status_code == 403
        assert not [name for name in answer.headers if name.startswith("access-control-")]
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/ws", headers={"host": OWN, **headers}):
        pass


def test_a_header_that_is_sent_twice_matches_nothing(client: TestClient) -> None:
    twice: list[Mapping[str, str] | list[tuple[str, str]]] = [
        [("host", OWN), ("host", "evil.example")],
        [("host", OWN), ("origin", f"http://{OWN}"), ("origin", "https://evil.example")],
    ]
    for headers in twice:
        assert client.post("/", headers=headers).status_code in (403, 421)


def test_links_from_other_sites_are_followed_but_nothing_is_fetched_for_them(client: TestClient) -> None:
    link = {"host": OWN, "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "referer": "https://mail.example/"}
    assert client.get("/", headers=link).status_code == 200
    assert client.post("/", headers=link).status_code == 403
    assert client.get("/", headers=link | {"sec-fetch-mode": "no-cors"}).status_code == 403


def test_allowed_pages_are_answered_as_browsers_ask(client: TestClient) -> None:
    answer = client.options(
        "/",
        headers={
            "host": OWN,
            "origin": PAGE,
            "sec-fetch-site": "cross-site",
            "access-control-request-method": "DELETE",
            "access-control-request-headers": "authorization,content-type",
            "access-control-request-private-network": "true",
        },
    )
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "DELETE" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == "authorization,content-type"
    assert answer.headers["access-control-allow-private-network"] == "true"
    assert client.get("/", headers={"host": OWN, "origin": PAGE}).headers["access-control-expose-headers"] == "Location"
    with client.websocket_connect("/ws", headers={"host": OWN, "origin": PAGE}) as socket:
        assert socket.receive_text() == "open"
    with client.websocket_connect("/ws", headers={"host": OWN}) as socket:
        assert socket.receive_text() == "open"


def test_names_of_the_machine_belong_to_services_that_others_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Tower.lan")
    assert host_names("0.0.0.0") == {"tower.lan", "tower"}
    assert host_names("::") == {"tower.lan", "tower"}
    assert host_names("10.0.0.5", ["Steno:443"]) == {"tower.lan", "tower", "10.0.0.5", "steno"}
    assert host_names("127.0.0.1") == {"127.0.0.1"}
    assert host_names("::1") == {"::1"}


def test_settings_are_checked_and_spelled_one_way() -> None:
    assert TypeAdapter(HostName).validate_python("Steno.Example.com:443") == "steno.example.com"
    assert TypeAdapter(Origin).validate_python("HTTPS://Page.Example.com/") == PAGE
    for wrong in ("https://steno.example.com", "a b", "*", ""):
        with pytest.raises(ValidationError, match="host name"):
            TypeAdapter(HostName).validate_python(wrong)
    for wrong in ("page.example.com", "*", "null", "https://a/b", "ftp://a"):
        with pytest.raises(ValidationError, match="origin"):
            TypeAdapter(Origin).validate_python(wrong)
