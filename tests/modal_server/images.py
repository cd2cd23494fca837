"""Images and local files: recorded as the client sent them, not built. Their ENV, WORKDIR and copied files take effect."""

from __future__ import annotations

import hashlib
import re
import shlex
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from modal_proto import api_pb2

from .rootfs import Rootfs
from .rpc import Caller, not_found
from .state import World, new_id

BUILDER_VERSION = "2025.06"
SUCCESS = api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_SUCCESS)


def layers(world: World, image_id: str) -> Iterator[api_pb2.ImageGetOrCreateRequest]:
    """The image's layers, its base first."""
    request = world.images.get(image_id)
    if request is None:
        return
    for base in request.image.base_images:
        yield from layers(world, base.image_id)
    yield request


def image_env(world: World, image_id: str) -> dict[str, str]:
    """ENV of all layers; PATH stays the host's, since nothing was installed."""
    env: dict[str, str] = {}
    for layer in layers(world, image_id):
        for command in layer.image.dockerfile_commands:
            if match := re.match(r"\s*ENV\s+(.*)", command, re.IGNORECASE | re.DOTALL):
                env |= _pairs(match[1])
    env.pop("PATH", None)
    return env


def _pairs(text: str) -> dict[str, str]:
    words = shlex.split(text)
    if words and "=" not in words[0]:  # ENV NAME value
        return {words[0]: " ".join(words[1:])}
    return dict(word.split("=", 1) for word in words if "=" in word)


def image_workdir(world: World, image_id: str) -> str:
    found = ""
    for layer in layers(world, image_id):
        for command in layer.image.dockerfile_commands:
            if match := re.match(r"\s*WORKDIR\s+(.*)", command, re.IGNORECASE):
                found = shlex.split(match[1])[0]
    return found


def layer_copies(world: World, image_id: str) -> list[tuple[str, str]]:
    """Local files that `copy=True` put into a layer: (mount, where)."""
    found = []
    for layer in layers(world, image_id):
        for command in layer.image.dockerfile_commands:
            if layer.image.context_mount_id and (match := re.match(r"\s*COPY\s+\.\s+(\S+)\s*$", command)):
                found.append((layer.image.context_mount_id, match[1]))
    return found


class ImageService:
    def __init__(self, world: World, rootfs: Rootfs, blobs: Path) -> None:
        self.world, self.rootfs, self.blobs = world, rootfs, blobs
        self.named: dict[str, str] = {}

    def _metadata(self) -> api_pb2.ImageMetadata:
        version = ".".join(map(str, sys.version_info[:3]))
        return api_pb2.ImageMetadata(python_version_info=version, workdir="/root", image_builder_version=BUILDER_VERSION)

    async def image_get_or_create(
        self, request: api_pb2.ImageGetOrCreateRequest, caller: Caller
    ) -> api_pb2.ImageGetOrCreateResponse:
        digest = hashlib.sha256(request.image.SerializeToString(deterministic=True) + request.build_function_id.encode())
        image_id = "im-" + digest.hexdigest()[:22]
        self.world.images[image_id] = request
        self.world.metadata[image_id] = None
        return api_pb2.ImageGetOrCreateResponse(image_id=image_id, result=SUCCESS, metadata=self._metadata())

    async def image_from_id(self, request: api_pb2.ImageFromIdRequest, caller: Caller) -> api_pb2.ImageFromIdResponse:
        if request.image_id not in self.world.images:
            raise not_found(f"Image {request.image_id} not found")
        return api_pb2.ImageFromIdResponse(image_id=request.image_id, metadata=self._metadata())

    async def image_join_streaming(
        self, request: api_pb2.ImageJoinStreamingRequest, caller: Caller
    ) -> AsyncIterator[api_pb2.ImageJoinStreamingResponse]:
        yield api_pb2.ImageJoinStreamingResponse(result=SUCCESS, metadata=self._metadata(), eof=True)

    async def mount_batched_check_existence(
        self, request: api_pb2.MountBatchedCheckExistenceRequest, caller: Caller
    ) -> api_pb2.MountBatchedCheckExistenceResponse:
        missing = [digest for digest in request.sha256_hex_hashes if not self._has(digest)]
        return api_pb2.MountBatchedCheckExistenceResponse(missing_sha256_hex_hashes=missing)

    async def mount_put_file(self, request: api_pb2.MountPutFileRequest, caller: Caller) -> api_pb2.MountPutFileResponse:
        kind = request.WhichOneof("data_oneof")
        if kind is not None and not self._has(request.sha256_hex):
            target = self._path(request.sha256_hex)
            partial = target.with_name(new_id("part"))
            if kind == "data":
                partial.write_bytes(request.data)
            else:
                (self.blobs / request.data_blob_id).rename(partial)
            partial.rename(target)
        return api_pb2.MountPutFileResponse(exists=self._has(request.sha256_hex))

    async def mount_get_or_create(
        self, request: api_pb2.MountGetOrCreateRequest, caller: Caller
    ) -> api_pb2.MountGetOrCreateResponse:
        name = request.deployment_name
        if name and not request.files:
            # The client's own mount and its dependencies: containers have both from this machine's site-packages.
            if name not in self.named and request.namespace != api_pb2.DEPLOYMENT_NAMESPACE_GLOBAL:
                raise not_found(f"Mount '{name}' not found")
            mount_id = self.named.setdefault(name, new_id("mo"))
        else:
            listing = "".join(sorted(f"{entry.filename}\0{entry.sha256_hex}\0{entry.mode}\n" for entry in request.files))
            mount_id = "mo-" + hashlib.sha256(listing.encode()).hexdigest()[:22]
            self.rootfs.mounts[mount_id] = list(request.files)
            if name:
                self.named[name] = mount_id
        checksum = hashlib.sha256("".join(sorted(entry.sha256_hex for entry in request.files)).encode()).hexdigest()
        metadata = api_pb2.MountHandleMetadata(content_checksum_sha256_hex=checksum)
        self.world.metadata[mount_id] = metadata
        return api_pb2.MountGetOrCreateResponse(mount_id=mount_id, handle_metadata=metadata)

    def _path(self, digest: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise not_found("not a SHA-256")
        return self.rootfs.files / digest

    def _has(self, digest: str) -> bool:
        return self._path(digest).exists()
