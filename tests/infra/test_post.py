"""Telling an address: what is sent, which addresses are not told, and how little of an answer is believed."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from infra.addresses import AddressGuard
from infra.post import MOST_THREADS, Answer, _retry_after, posted
from infra.settings import NetSettings
from tests.api.receiver import HANG, HUGE, MIB, REDIRECT, Receiver


async def post(url: str, seconds: float = 5, guard: AddressGuard | None = None) -> Answer:
    return await posted(url, b"{}", {"webhook-id": "msg_1"}, NetSettings(allow_hosts=("127.0.0.1",)), seconds, guard=guard)


async def test_what_is_sent_arrives_as_it_is() -> None:
    with Receiver.listening() as receiver:
        answer = await post(f"{receiver.url}/hook?key=1")
        [message] = receiver.messages
    assert answer.accepted and answer.status == 204
    assert message.body == b"{}" and message.path == "/hook?key=1"
    assert message.headers["webhook-id"] == "msg_1"
    assert f"http://{message.headers['host']}" == receiver.url


@pytest.mark.parametrize(
    ("kind", "status", "said"),
    [
        (500, 500, "answered 500"),
        (410, 410, "answered 410"),
        (REDIRECT, 307, "answered 307, and redirects are not followed"),
        (HANG, None, "did not answer within 1 s"),
    ],
)
async def test_what_is_no_success_is_said_in_a_clause(kind: object, status: int | None, said: str) -> None:
    with Receiver.listening() as receiver:
        receiver.answers("/hook", kind)
        answer = await post(f"{receiver.url}/hook", seconds=1)
        assert answer == Answer(status, said)
        assert not answer.accepted and answer.gone == (status == 410)
        assert not receiver.got("/elsewhere")


async def test_little_is_read_of_a_huge_answer() -> None:
    with Receiver.listening() as receiver:
        receiver.answers("/hook", HUGE)
        answer = await post(f"{receiver.url}/hook")
        assert answer.accepted
        assert receiver.sent < 16 * MIB


async def test_an_answer_that_trickles_is_given_up_in_time(trickling: str) -> None:
    began = time.monotonic()
    assert await post(trickling, seconds=1) == Answer(None, "did not answer within 1 s")
    assert time.monotonic() - began < 30


@pytest.fixture
def trickling(tmp_path: object) -> object:
    """A server that sends a byte of its status line every now and then."""
    import socket
    import threading

    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        try:
            connection, _ = listener.accept()
            with connection:
                while True:
                    connection.sendall(b"H")
                    time.sleep(0.2)
        except OSError:
            return

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/hook"
    listener.close()


async def test_the_address_that_is_connected_to_is_the_one_that_was_checked() -> None:
    """A name that leads elsewhere at every look-up gains nothing."""
    with Receiver.listening() as receiver:
        port = receiver.url.rpartition(":")[2]
        refused = await post(f"http://hooks.test:{port}/hook", guard=AddressGuard(resolver=lambda host, port: ["127.0.0.1"]))
        mixed = await post(
            f"http://hooks.test:{port}/hook", guard=AddressGuard(resolver=lambda host, port: ["93.184.216.34", "127.0.0.1"])
        )
        assert refused == mixed == Answer(None, "resolves to an address that is not allowed")
        assert not receiver.messages


@pytest.mark.parametrize("url", ["http://169.254.169.254/", "http://[::1]/", "ftp://example.org/", "http://0x7f.1/"])
async def test_addresses_inside_are_not_told(url: str) -> None:
    assert await post(url) == Answer(None, "resolves to an address that is not allowed")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 120 ", 120.0),
        ("9" * 400, 999_999_999.0),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("1.5", None),
    ],
)
def test_what_a_receiver_asks_for_is_read(value: str, seconds: float | None) -> None:
    assert _retry_after(value) == seconds


def test_a_receiver_may_name_a_moment() -> None:
    in_a_minute = _retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True))
    assert in_a_minute is not None and 50 < in_a_minute <= 60
    assert _retry_after(format_datetime(datetime.now(UTC) - timedelta(seconds=60), usegmt=True)) == 0.0


async def test_nobody_listens() -> None:
    with Receiver.listening() as receiver:
        url = receiver.url
    assert await post(url) == Answer(None, "does not accept connections")


def test_there_is_a_thread_for_each_attempt_that_a_courier_may_make() -> None:
    from infra.settings import WebhookSettings

    assert WebhookSettings.model_fields["at_once"].default <= MOST_THREADS
