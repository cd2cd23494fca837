"""Google Cloud Storage, with locks by writes on condition of an object's generation. Credentials are Google's default ones."""

from __future__ import annotations

import json
import re
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar
from urllib.parse import quote

from infra.storage.leases import Leases, Seen
from infra.storage.remote import Remote

_NONE = "0"
"""The generation of an object that is not there."""
_BOUNDARY = "steno"


class Google(Remote):
    whole = buckets = True
    authority: ClassVar[re.Pattern[str] | None] = re.compile(r"[A-Za-z0-9._-]+")

    def locks(self, lease: float) -> Leases:
        return Leases(self, lease)

    def create(self, path: str, content: bytes, labels: dict[str, str]) -> str | None:
        return self._upload(path, content, labels, _NONE)

    def replace(self, path: str, content: bytes, labels: dict[str, str], version: str) -> str | None:
        return self._upload(path, content, labels, version)

    def look(self, path: str) -> Seen | None:
        bucket, key, _ = self.fs.split_path(self._full(path))
        try:
            headers, body = self.fs.call("GET", "b/{}/o/{}", bucket, key)
        except FileNotFoundError:
            return None
        there: dict[str, Any] = json.loads(body)
        age = parsedate_to_datetime(headers["Date"]) - datetime.fromisoformat(there["updated"])
        return Seen(str(there["generation"]), there.get("metadata", {}), age.total_seconds())

    def _upload(self, path: str, content: bytes, labels: dict[str, str], generation: str) -> str | None:
        """gcsfs writes on condition that there is nothing; on condition of a generation, only its requests are of use."""
        bucket, key, _ = self.fs.split_path(self._full(path))
        about = json.dumps({"name": key, "metadata": labels}).encode()
        start, end = f"--{_BOUNDARY}\r\n".encode(), f"\r\n--{_BOUNDARY}--".encode()
        body = start + b"Content-Type: application/json\r\n\r\n" + about + b"\r\n" + start
        body += b"Content-Type: application/octet-stream\r\n\r\n" + content + end
        try:
            answer = self.fs.call(
                "POST",
                f"{self.fs._location}/upload/storage/v1/b/{quote(bucket, safe='')}/o",
                uploadType="multipart",
                ifGenerationMatch=generation,
                headers={"Content-Type": f'multipart/related; boundary="{_BOUNDARY}"'},
                data=body,
                json_out=True,
            )
        except FileExistsError:  # what gcsfs makes of 412
            return None
        return str(answer["generation"])
