"""The filesystem that a store's URL names, by way of fsspec."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infra.settings import S3Settings

S3 = ("s3://", "s3a://")
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "created")


def opened(url: str, s3: S3Settings | None) -> tuple[Any, str]:
    """The filesystem and the path in it.

    Listings are not cached: other machines write here too, and what was listed once says nothing about now.
    """
    if url.startswith(S3):
        from infra.s3_files import PatientS3
        from infra.settings import S3Settings

        return PatientS3.of(s3 or S3Settings()), str(PatientS3._strip_protocol(url))
    from fsspec.core import url_to_fs

    fs, path = url_to_fs(url, **({"use_listings_cache": False} if "://" in url else {}))
    return fs, str(path)


def modified(info: dict[str, Any]) -> float:
    """When the file was written last; filesystems name it differently."""
    value = next((info[name] for name in _TIMES if info.get(name) is not None), 0.0)
    return float(value.timestamp() if isinstance(value, datetime) else value)
