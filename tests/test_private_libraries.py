"""What s3fs and uvicorn do not document, and one module of ours each overrides: these fail when an upgrade moves it."""

from __future__ import annotations

import inspect

import pytest
from s3fs import S3FileSystem
from uvicorn import Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.protocol import PatientProtocol
from infra.storage.s3_files import PatientS3


@pytest.mark.parametrize(
    ("name", "takes"),
    [
        ("_call_s3", ["self", "method", "akwarglist", "kwargs"]),
        ("_cat_file", ["self", "path", "version_id", "start", "end", "chunksize", "max_concurrency"]),
        ("_info", ["self", "path", "bucket", "key", "refresh", "version_id"]),
        ("_put_file", ["self", "lpath", "rpath", "callback", "chunksize", "max_concurrency", "mode", "kwargs"]),
    ],
)
def test_the_requests_of_s3fs_go_through_what_is_overridden(name: str, takes: list[str]) -> None:
    assert list(inspect.signature(getattr(S3FileSystem, name)).parameters) == takes
    assert getattr(PatientS3, name) is not getattr(S3FileSystem, name)


@pytest.mark.parametrize("name", ["split_path", "_strip_protocol", "loop"])
def test_s3fs_has_what_is_asked_of_it(name: str) -> None:
    assert hasattr(S3FileSystem, name)


@pytest.mark.parametrize(
    ("name", "takes"),
    [
        ("connection_made", ["self", "transport"]),
        ("connection_lost", ["self", "exc"]),
        ("data_received", ["self", "data"]),
        ("send_400_response", ["self", "msg"]),
    ],
)
def test_uvicorns_protocol_is_told_of_a_connection_as_ours_expects(name: str, takes: list[str]) -> None:
    assert list(inspect.signature(getattr(H11Protocol, name)).parameters) == takes
    assert getattr(PatientProtocol, name) is not getattr(H11Protocol, name)


def test_uvicorns_protocol_has_what_ours_reads() -> None:
    made = inspect.getsource(H11Protocol.__init__)
    for name in ("self.conn", "self.loop", "self.transport"):
        assert f"{name} =" in made or f"{name}:" in made


def test_uvicorns_server_starts_by_one_method() -> None:
    assert list(inspect.signature(Server.startup).parameters) == ["self", "sockets"]
