"""Volumes over gRPC: create, list, upload (both file systems), download, and commit and reload from a container."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from google.protobuf.empty_pb2 import Empty
from grpclib import Status
from modal._utils.blob_utils import BLOCK_SIZE
from modal_proto import api_pb2

from .blobs import Blobs
from .objects import by_id, get_or_create
from .rootfs import Rootfs
from .rpc import Caller, not_found, refuse
from .state import World, new_id
from .volume_files import View, Volume, VolumeFiles, inside

V1, V2 = api_pb2.VOLUME_FS_VERSION_V1, api_pb2.VOLUME_FS_VERSION_V2
File, Directory, Link = api_pb2.FileEntry.FILE, api_pb2.FileEntry.DIRECTORY, api_pb2.FileEntry.SYMLINK


class VolumeService:
    def __init__(self, world: World, files: VolumeFiles, rootfs: Rootfs, blobs: Blobs) -> None:
        self.world, self.files, self.rootfs, self.blobs = world, files, rootfs, blobs

    async def volume_get_or_create(
        self, request: api_pb2.VolumeGetOrCreateRequest, caller: Caller
    ) -> api_pb2.VolumeGetOrCreateResponse:
        volume = get_or_create(Volume, self.files.volumes, "vo", request)
        if volume.folder == Path():
            volume.folder = self.files.folder / volume.id
            volume.folder.mkdir(parents=True)
            volume.version = request.version or V1
        self.world.metadata[volume.id] = volume.metadata()
        return api_pb2.VolumeGetOrCreateResponse(
            volume_id=volume.id, version=volume.metadata().version, metadata=volume.metadata()
        )

    def named(self, name: str) -> Volume:
        request = api_pb2.VolumeGetOrCreateRequest(
            deployment_name=name, object_creation_type=api_pb2.OBJECT_CREATION_TYPE_CREATE_IF_MISSING
        )
        volume = get_or_create(Volume, self.files.volumes, "vo", request)
        if volume.folder == Path():
            volume.folder = self.files.folder / volume.id
            volume.folder.mkdir(parents=True)
            self.world.metadata[volume.id] = volume.metadata()
        return volume

    def _volume(self, volume_id: str) -> Volume:
        return by_id(self.files.volumes, volume_id)

    async def volume_get_by_id(self, request: api_pb2.VolumeGetByIdRequest, caller: Caller) -> api_pb2.VolumeGetByIdResponse:
        return api_pb2.VolumeGetByIdResponse(volume_id=request.volume_id, metadata=self._volume(request.volume_id).metadata())

    async def volume_heartbeat(self, request: api_pb2.VolumeHeartbeatRequest, caller: Caller) -> Empty:
        return Empty()

    async def volume_list(self, request: api_pb2.VolumeListRequest, caller: Caller) -> api_pb2.VolumeListResponse:
        listed = sorted((each for each in self.files.volumes.values() if each.name), key=lambda each: -each.created_at)
        items = [
            api_pb2.VolumeListItem(label=each.name, volume_id=each.id, created_at=each.created_at, metadata=each.metadata())
            for each in listed
        ]
        return api_pb2.VolumeListResponse(items=items, environment_name="main")

    async def volume_delete(self, request: api_pb2.VolumeDeleteRequest, caller: Caller) -> Empty:
        volume = self._volume(request.volume_id)
        del self.files.volumes[volume.id]
        await asyncio.to_thread(shutil.rmtree, volume.folder, ignore_errors=True)
        return Empty()

    async def volume_rename(self, request: api_pb2.VolumeRenameRequest, caller: Caller) -> Empty:
        self._volume(request.volume_id).name = request.name
        return Empty()

    # From a container

    def _view(self, volume_id: str, caller: Caller) -> View:
        self._volume(volume_id)
        view = caller.container.views.get(volume_id) if caller.container else None
        if view is None:
            raise not_found(f"Volume {volume_id} is not mounted here: commit and reload work inside a container that mounts it")
        assert isinstance(view, View)
        return view

    async def volume_commit(self, request: api_pb2.VolumeCommitRequest, caller: Caller) -> api_pb2.VolumeCommitResponse:
        view, container = self._view(request.volume_id, caller), caller.inside()
        mounts = container.function.definition.volume_mounts
        if any(each.volume_id == request.volume_id and each.read_only for each in mounts):
            return api_pb2.VolumeCommitResponse(skip_reload=True)
        await asyncio.to_thread(self.files.commit, view)
        return api_pb2.VolumeCommitResponse(skip_reload=await asyncio.to_thread(self.files.in_use, view, container))

    async def volume_reload(self, request: api_pb2.VolumeReloadRequest, caller: Caller) -> Empty:
        view = self._view(request.volume_id, caller)
        await asyncio.to_thread(self.files.reload, view, caller.inside())
        return Empty()

    # Upload

    async def volume_put_files(self, request: api_pb2.VolumePutFilesRequest, caller: Caller) -> Empty:
        volume = self._volume(request.volume_id)
        self._check(volume, [entry.filename for entry in request.files], request.disallow_overwrite_existing_files)
        for entry in request.files:
            source = self.rootfs.files / entry.sha256_hex
            if not source.exists():
                raise not_found(f"the content of {entry.filename} was not uploaded")
            await asyncio.to_thread(self.files.put, volume, source, entry.filename, entry.mode)
        return Empty()

    async def volume_put_files2(
        self, request: api_pb2.VolumePutFiles2Request, caller: Caller
    ) -> api_pb2.VolumePutFiles2Response:
        volume = self._volume(request.volume_id)
        self._check(volume, [entry.path for entry in request.files], request.disallow_overwrite_existing_files)
        response = api_pb2.VolumePutFiles2Response()
        for file_index, entry in enumerate(request.files):
            for block_index, block in enumerate(entry.blocks):
                if not (self.blobs.folder / f"block-{block.contents_sha256.hex()}").exists():
                    response.missing_blocks.add(
                        file_index=file_index,
                        block_index=block_index,
                        put_url=self.blobs.url(f"block/{block.contents_sha256.hex()}"),
                    )
        if not response.missing_blocks:
            for entry in request.files:
                await asyncio.to_thread(self._assemble, volume, entry)
        return response

    def _assemble(self, volume: Volume, entry: api_pb2.VolumePutFiles2Request.File) -> None:
        partial = self.blobs.folder / new_id("part")
        with partial.open("wb") as out:
            for index, block in enumerate(entry.blocks):
                out.seek(index * BLOCK_SIZE)
                out.write((self.blobs.folder / f"block-{block.contents_sha256.hex()}").read_bytes())
            out.truncate(entry.size)
        self.files.put(volume, partial, entry.path, entry.mode, move=True)

    def _check(self, volume: Volume, names: list[str], keep: bool) -> None:
        taken = [name for name in names if os.path.lexists(inside(volume.folder, name))]
        if keep and taken:
            raise refuse(Status.ALREADY_EXISTS, f"{taken[0]}: already exists")

    # Reading and changing

    def _path(self, volume: Volume, name: str) -> Path:
        path = inside(volume.folder, name)
        if not os.path.lexists(path):
            raise not_found(f"{name}: no such file or directory")
        return path

    def _entry(self, volume: Volume, path: Path) -> api_pb2.FileEntry:
        about = path.lstat()
        kind = Link if path.is_symlink() else Directory if path.is_dir() else File
        name = os.path.relpath(path, volume.folder)
        return api_pb2.FileEntry(path=name, type=kind, mtime=int(about.st_mtime), size=about.st_size)

    def _list(self, request: Any) -> list[api_pb2.FileEntry]:
        volume = self._volume(request.volume_id)
        path = self._path(volume, request.path)
        if not path.is_dir():
            return [self._entry(volume, path)]
        found = sorted(path.rglob("*") if request.recursive else path.iterdir())
        return [self._entry(volume, each) for each in found]

    async def volume_list_files(
        self, request: api_pb2.VolumeListFilesRequest, caller: Caller
    ) -> AsyncIterator[api_pb2.VolumeListFilesResponse]:
        yield api_pb2.VolumeListFilesResponse(entries=self._list(request))

    async def volume_list_files2(
        self, request: api_pb2.VolumeListFiles2Request, caller: Caller
    ) -> AsyncIterator[api_pb2.VolumeListFiles2Response]:
        yield api_pb2.VolumeListFiles2Response(entries=self._list(request))

    async def volume_get_file2(self, request: api_pb2.VolumeGetFile2Request, caller: Caller) -> api_pb2.VolumeGetFile2Response:
        volume = self._volume(request.volume_id)
        path = self._path(volume, request.path)
        if path.is_dir():
            raise refuse(Status.INVALID_ARGUMENT, f"{request.path} is a directory")
        size = path.stat().st_size
        start, length = min(request.start, size), min(request.len or size, size - min(request.start, size))
        urls = []
        for begin in range(start - start % BLOCK_SIZE, start + length, BLOCK_SIZE):
            first, last = max(begin, start), min(begin + BLOCK_SIZE, start + length)
            urls.append(self.blobs.url(f"volume/{volume.id}/{first}/{last}/{os.path.relpath(path, volume.folder)}"))
        return api_pb2.VolumeGetFile2Response(get_urls=urls, size=size, start=start, len=length)

    async def volume_remove_file(self, request: Any, caller: Caller) -> Empty:
        volume = self._volume(request.volume_id)
        path = self._path(volume, request.path)
        if path.is_dir() and not request.recursive:
            raise refuse(Status.INVALID_ARGUMENT, f"{request.path} is a directory: remove it recursively")
        self.files.remove(volume, request.path)
        return Empty()

    volume_remove_file2 = volume_remove_file

    async def volume_copy_files(self, request: Any, caller: Caller) -> Empty:
        volume = self._volume(request.volume_id)
        target = inside(volume.folder, request.dst_path)
        for name in request.src_paths:
            source = self._path(volume, name)
            to = f"{request.dst_path}/{source.name}" if target.is_dir() else request.dst_path
            if source.is_dir():
                self.files.seed(volume, source, to)
            else:
                self.files.put(volume, source, to)
        return Empty()

    volume_copy_files2 = volume_copy_files
