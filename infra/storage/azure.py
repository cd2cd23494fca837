"""Azure's blobs, with locks by writes on condition of a blob's ETag. The account is named by the address or AZURE_STORAGE_*."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar

from infra.storage.leases import Leases, Seen
from infra.storage.remote import Remote
from infra.storage_errors import remote_status


class Azure(Remote):
    whole = buckets = True
    authority: ClassVar[re.Pattern[str] | None] = re.compile(r"[A-Za-z0-9._-]+(@[A-Za-z0-9._-]+)?")

    def write(self, path: str, content: bytes, *, private: bool = False) -> None:
        try:
            super().write(path, content)
        except Exception as error:
            if remote_status(error) == 404:  # adlfs says so of a missing container in the SDK's words
                raise FileNotFoundError(self._full(path)) from error
            raise

    def locks(self, lease: float) -> Leases:
        return Leases(self, lease)

    def create(self, path: str, content: bytes, labels: dict[str, str]) -> str | None:
        return self._upload(path, content, labels, overwrite=False)

    def replace(self, path: str, content: bytes, labels: dict[str, str], version: str) -> str | None:
        from azure.core import MatchConditions

        return self._upload(path, content, labels, overwrite=True, etag=version, match_condition=MatchConditions.IfNotModified)

    def look(self, path: str) -> Seen | None:
        told: dict[str, str] = {}

        def clock(response: Any) -> None:
            told["date"] = response.http_response.headers["Date"]

        try:
            there = self._call(path, "get_blob_properties", raw_response_hook=clock)
        except Exception as error:
            if remote_status(error) == 404:
                return None
            raise
        age = parsedate_to_datetime(told["date"]) - there.last_modified
        return Seen(str(there.etag), dict(there.metadata), age.total_seconds())

    def _upload(self, path: str, content: bytes, labels: dict[str, str], **condition: Any) -> str | None:
        try:
            answer = self._call(path, "upload_blob", content, metadata=labels, **condition)
        except Exception as error:
            if remote_status(error) in (409, 412):
                return None
            raise
        return str(answer["etag"])

    def _call(self, path: str, method: str, *args: Any, **options: Any) -> Any:
        """A method of the SDK's client of the blob: adlfs has conditions only for creating."""
        from fsspec.asyn import sync

        container, blob, _ = self.fs.split_path(self._full(path))

        async def call() -> Any:
            async with self.fs.service_client.get_blob_client(container=container, blob=blob) as client:
                return await getattr(client, method)(*args, **options)

        return sync(self.fs.loop, call)
