"""S3: bodies that arrive whole or not at all, locks by conditional writes, and multipart uploads that have to be aborted."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterator
from email.utils import parsedate_to_datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Self

from infra.settings import S3Settings
from infra.storage.leases import Leases, Seen
from infra.storage.remote import Ask, Found, Remote
from infra.storage.s3_files import PatientS3, s3_options
from infra.storage_errors import remote_status
from stenoflow.errors import SourceNotFound

_PAGE = 1000


class S3(Remote):
    whole = buckets = public = True
    authority: ClassVar[re.Pattern[str] | None] = re.compile(r"[A-Za-z0-9._:-]+")

    @classmethod
    def at(cls, address: str, s3: S3Settings | None = None) -> Self:
        environment = tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))
        return cls(_client(s3 or S3Settings(), environment, os.getpid()), str(PatientS3._strip_protocol(address)))

    @classmethod
    def source(cls, url: str, s3: S3Settings, *, anonymous: bool = False) -> tuple[Any, str]:
        fs, path = super().source(url, s3, anonymous=anonymous)
        fs.retries = 1
        return fs, path

    @classmethod
    def _source_options(cls, s3: S3Settings, anonymous: bool) -> dict[str, Any]:
        return s3_options(s3) | ({"anon": True} if anonymous else {})

    @classmethod
    def recordings(cls, fs: Any, path: str, ask: Ask, *, deep: bool) -> Iterator[Found]:
        """Page by page: s3fs's own listings hold a whole bucket in memory."""
        bucket, _, key = path.strip("/").partition("/")
        request: dict[str, Any] = {"Bucket": bucket, "Prefix": f"{key}/" if key else "", "MaxKeys": _PAGE}
        if not deep:
            request["Delimiter"] = "/"
        found = False
        while True:
            page = ask(fs.call_s3, "list_objects_v2", **request)
            for entry in page.get("Contents", ()):
                found = True
                if not entry["Key"].endswith("/"):
                    yield Found(f"{bucket}/{entry['Key']}", {**entry, "size": entry["Size"]})
            found = found or bool(page.get("CommonPrefixes"))
            token = page.get("NextContinuationToken")
            if not token:
                break
            request["ContinuationToken"] = token
        if not found and key:
            try:
                info = ask(fs.info, f"{bucket}/{key}")
            except SourceNotFound:
                return  # the caller says that nothing is there
            yield Found(f"{bucket}/{key}", info)

    def put(self, source: Path, path: str) -> None:
        try:
            super().put(source, path)
        except FileNotFoundError:
            # A parted upload whose last answer was lost: asked again, the service knows of no such upload any more.
            if self.size(path) != source.stat().st_size:
                raise

    def get(self, path: str, target: Path, size: int | None = None) -> None:
        full = self._full(path)
        target.touch()
        self.fs.download(full, target, int(self.fs.info(full)["size"]) if size is None else size)

    def locks(self, lease: float) -> Leases:
        return Leases(self, lease)

    # -- writes on condition ------------------------------------------------------------------------------------------

    def create(self, path: str, content: bytes, labels: dict[str, str]) -> str | None:
        return self._conditional(path, content, labels, IfNoneMatch="*")

    def replace(self, path: str, content: bytes, labels: dict[str, str], version: str) -> str | None:
        with contextlib.suppress(FileNotFoundError):
            return self._conditional(path, content, labels, IfMatch=version)
        return None

    def look(self, path: str) -> Seen | None:
        bucket, key, _ = self.fs.split_path(self._full(path))
        try:
            head = self.fs.call_s3("head_object", Bucket=bucket, Key=key)
        except FileNotFoundError:
            return None
        now = parsedate_to_datetime(head["ResponseMetadata"]["HTTPHeaders"]["date"])
        return Seen(head["ETag"], head.get("Metadata", {}), (now - head["LastModified"]).total_seconds())

    def _conditional(self, path: str, content: bytes, labels: dict[str, str], **condition: str) -> str | None:
        bucket, key, _ = self.fs.split_path(self._full(path))
        try:
            answer = self.fs.call_s3("put_object", Bucket=bucket, Key=key, Body=content, Metadata=labels, **condition)
        except Exception as error:
            # 409: somebody else's conditional write was under way.
            if isinstance(error, FileExistsError) or remote_status(error) in (409, 412):
                return None
            raise
        return str(answer["ETag"])

    # -- uploads in parts ---------------------------------------------------------------------------------------------

    def abort_uploads(self, folders: Collection[str], before: float, *, dry_run: bool) -> int:
        """Until they are aborted they cost as stored bytes do."""
        bucket, prefix, _ = self.fs.split_path(self.root)
        stale = [
            upload
            for folder in folders
            for upload in self._uploads(bucket, f"{prefix}/{folder}/".lstrip("/"))
            if upload["Initiated"].timestamp() < before
        ]
        for upload in stale if not dry_run else ():
            with contextlib.suppress(FileNotFoundError):
                self.fs.call_s3("abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        return len(stale)

    def _uploads(self, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
        markers: dict[str, str] = {}
        while True:
            page = self.fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix, **markers)
            yield from page.get("Uploads", ())
            if not page.get("IsTruncated"):
                return
            markers = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


@lru_cache(maxsize=4)
def _client(s3: S3Settings, environment: tuple[tuple[str, str], ...], process: int) -> PatientS3:
    """Kept open, since connecting is slow; a process that was forked needs its own."""
    return PatientS3.of(s3)
