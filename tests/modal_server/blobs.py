"""The HTTP side: large inputs, results and files go up and down by URL, as through Modal's object storage."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web
from modal_proto import api_pb2

from .rpc import Caller, not_found
from .state import new_id

if TYPE_CHECKING:
    from .volume_files import VolumeFiles

MULTIPART_FROM = 1024**3
PART = 256 * 1024**2
CHUNK = 1 << 20


class Blobs:
    def __init__(self, folder: Path, files: VolumeFiles) -> None:
        self.folder, self.files = folder, files
        self.base = ""

    def url(self, path: str) -> str:
        return f"{self.base}/{path}"

    def routes(self) -> list[web.RouteDef]:
        return [
            web.put("/blob/{id}", self.put_blob),
            web.get("/blob/{id}", self.get_blob),
            web.put("/part/{id}/{number}", self.put_part),
            web.post("/complete/{id}", self.complete),
            web.put("/block/{sha256}", self.put_block),
            web.get("/volume/{id}/{first}/{last}/{path:.+}", self.get_volume),
        ]

    async def blob_create(self, request: api_pb2.BlobCreateRequest, caller: Caller) -> api_pb2.BlobCreateResponse:
        blob_id = new_id("bl")
        if request.content_length <= MULTIPART_FROM:
            urls = api_pb2.UploadUrlList(items=[self.url(f"blob/{blob_id}")])
            return api_pb2.BlobCreateResponse(blob_ids=[blob_id], upload_urls=urls)
        count = -(-request.content_length // PART)
        upload = api_pb2.MultiPartUpload(
            part_length=PART,
            upload_urls=[self.url(f"part/{blob_id}/{number}") for number in range(count)],
            completion_url=self.url(f"complete/{blob_id}"),
        )
        return api_pb2.BlobCreateResponse(blob_ids=[blob_id], multiparts=api_pb2.MultiPartUploadList(items=[upload]))

    async def blob_get(self, request: api_pb2.BlobGetRequest, caller: Caller) -> api_pb2.BlobGetResponse:
        if not (self.folder / request.blob_id).exists():
            raise not_found(f"Blob {request.blob_id} not found")
        return api_pb2.BlobGetResponse(download_url=self.url(f"blob/{request.blob_id}"))

    async def _receive(self, request: web.Request, target: Path, algorithm: str) -> str:
        digest = hashlib.new(algorithm, usedforsecurity=False)
        partial = target.with_name(new_id("part"))
        with partial.open("wb") as out:
            async for data in request.content.iter_chunked(CHUNK):
                digest.update(data)
                out.write(data)
        partial.rename(target)
        return digest.hexdigest()

    async def put_blob(self, request: web.Request) -> web.Response:
        etag = await self._receive(request, self.folder / Path(request.match_info["id"]).name, "md5")
        return web.Response(headers={"ETag": f'"{etag}"'})

    async def put_part(self, request: web.Request) -> web.Response:
        name = f"{Path(request.match_info['id']).name}.{int(request.match_info['number']):05}"
        return web.Response(headers={"ETag": f'"{await self._receive(request, self.folder / name, "md5")}"'})

    async def complete(self, request: web.Request) -> web.Response:
        blob_id = Path(request.match_info["id"]).name
        parts = sorted(self.folder.glob(f"{blob_id}.*"))
        etags = b""
        with (self.folder / blob_id).open("wb") as out:
            for part in parts:
                digest = hashlib.md5(usedforsecurity=False)
                with part.open("rb") as source:
                    while data := source.read(CHUNK):
                        digest.update(data)
                        out.write(data)
                etags += digest.digest()
                part.unlink()
        return web.Response(text=f"{hashlib.md5(etags, usedforsecurity=False).hexdigest()}-{len(parts)}")

    async def put_block(self, request: web.Request) -> web.Response:
        digest = request.match_info["sha256"]
        arrived = self.folder / new_id("arrived")
        if await self._receive(request, arrived, "sha256") != digest:
            arrived.unlink()
            return web.Response(status=400, text="the block's content is not what was announced")
        arrived.rename(self.folder / f"block-{digest}")
        return web.Response(body=digest.encode())

    async def get_blob(self, request: web.Request) -> web.StreamResponse:
        path = self.folder / Path(request.match_info["id"]).name
        return web.FileResponse(path) if path.exists() else web.Response(status=404)

    async def get_volume(self, request: web.Request) -> web.StreamResponse:
        volume = self.files.volumes.get(request.match_info["id"])
        path = volume.folder / request.match_info["path"] if volume else None
        if volume is None or path is None or volume.folder not in Path(os.path.normpath(path)).parents or not path.exists():
            return web.Response(status=404)
        first, last = int(request.match_info["first"]), int(request.match_info["last"])
        with path.open("rb") as source:
            source.seek(first)
            return web.Response(body=source.read(last - first))
