"""Secrets, dicts and queues, and what hydrates any object inside a container."""

from __future__ import annotations

import hashlib
import json
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from google.protobuf.empty_pb2 import Empty
from grpclib import Status
from modal_proto import api_pb2

from .rpc import Caller, not_found, refuse
from .state import Signal, World, new_id

MISSING_OK = {
    api_pb2.OBJECT_CREATION_TYPE_CREATE_IF_MISSING,
    api_pb2.OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS,
    api_pb2.OBJECT_CREATION_TYPE_CREATE_OVERWRITE_IF_EXISTS,
}
UNNAMED = {api_pb2.OBJECT_CREATION_TYPE_ANONYMOUS_OWNED_BY_APP, api_pb2.OBJECT_CREATION_TYPE_EPHEMERAL}
T = TypeVar("T", bound="Named")


@dataclass
class Named:
    id: str
    name: str
    created_at: float = field(default_factory=time.time)

    def info(self) -> api_pb2.CreationInfo:
        return api_pb2.CreationInfo(created_at=self.created_at, created_by="tests")


@dataclass
class Secret(Named):
    env: dict[str, str] = field(default_factory=dict)

    def metadata(self) -> api_pb2.SecretMetadata:
        return api_pb2.SecretMetadata(name=self.name, creation_info=self.info(), keys=sorted(self.env))


@dataclass
class Dict(Named):
    items: dict[bytes, bytes] = field(default_factory=dict)

    def metadata(self) -> api_pb2.DictMetadata:
        return api_pb2.DictMetadata(name=self.name, creation_info=self.info())


@dataclass
class Queue(Named):
    partitions: dict[bytes, deque[tuple[int, bytes]]] = field(default_factory=lambda: defaultdict(deque))
    counter: int = 0
    signal: Signal = field(default_factory=Signal)

    def metadata(self) -> api_pb2.QueueMetadata:
        return api_pb2.QueueMetadata(name=self.name, creation_info=self.info())


def get_or_create(kind: type[T], store: dict[str, T], prefix: str, request: Any) -> T:
    """The semantics that all named objects share: look up, create if missing, fail if it exists, or make an unnamed one."""
    creation, name = request.object_creation_type, request.deployment_name
    found = None if creation in UNNAMED else next((each for each in store.values() if each.name == name), None)
    if found and creation == api_pb2.OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS:
        raise refuse(Status.ALREADY_EXISTS, f"{kind.__name__} '{name}' already exists")
    if found is None:
        if creation not in MISSING_OK | UNNAMED:
            raise not_found(f"{kind.__name__} '{name}' not found in environment '{request.environment_name or 'main'}'")
        found = kind(new_id(prefix), "" if creation in UNNAMED else name)
        store[found.id] = found
    return found


def by_id(store: dict[str, T], object_id: str) -> T:
    if object_id not in store:
        raise not_found(f"Object {object_id} not found")
    return store[object_id]


class Objects:
    def __init__(self, world: World) -> None:
        self.world = world
        self.secrets: dict[str, Secret] = {}
        self.dicts: dict[str, Dict] = {}

    def handle(self, object_id: str) -> api_pb2.Object:
        """The object as an app's layout lists it."""
        listed = api_pb2.Object(object_id=object_id)
        metadata = self.world.metadata.get(object_id)
        for message, member in (
            (api_pb2.FunctionHandleMetadata, listed.function_handle_metadata),
            (api_pb2.ClassHandleMetadata, listed.class_handle_metadata),
            (api_pb2.MountHandleMetadata, listed.mount_handle_metadata),
            (api_pb2.VolumeMetadata, listed.volume_metadata),
        ):
            if isinstance(metadata, message):
                member.CopyFrom(metadata)
        return listed

    # Secrets

    async def secret_get_or_create(
        self, request: api_pb2.SecretGetOrCreateRequest, caller: Caller
    ) -> api_pb2.SecretGetOrCreateResponse:
        if request.object_creation_type == api_pb2.OBJECT_CREATION_TYPE_ANONYMOUS_OWNED_BY_APP:
            secret = self._anonymous(request)
        else:
            secret = get_or_create(Secret, self.secrets, "st", request)
        if request.object_creation_type in MISSING_OK | UNNAMED and (
            request.env_dict or request.object_creation_type == api_pb2.OBJECT_CREATION_TYPE_CREATE_OVERWRITE_IF_EXISTS
        ):
            secret.env = dict(request.env_dict)
        if missing := set(request.required_keys) - set(secret.env):
            raise not_found(f"Secret is missing key(s): {', '.join(sorted(missing))}")
        return api_pb2.SecretGetOrCreateResponse(secret_id=secret.id, metadata=secret.metadata())

    def _anonymous(self, request: api_pb2.SecretGetOrCreateRequest) -> Secret:
        """The same values for the same app are the same object: deploying again then changes nothing."""
        content = json.dumps([request.app_id, sorted(request.env_dict.items())])
        secret_id = "st-" + hashlib.sha256(content.encode()).hexdigest()[:22]
        return self.secrets.setdefault(secret_id, Secret(secret_id, ""))

    async def secret_get_info(self, request: api_pb2.SecretGetInfoRequest, caller: Caller) -> api_pb2.SecretGetInfoResponse:
        return api_pb2.SecretGetInfoResponse(metadata=by_id(self.secrets, request.secret_id).metadata())

    async def secret_list(self, request: api_pb2.SecretListRequest, caller: Caller) -> api_pb2.SecretListResponse:
        listed = [
            api_pb2.SecretListItem(label=each.name, created_at=each.created_at, secret_id=each.id, metadata=each.metadata())
            for each in self._named(self.secrets.values())
        ]
        return api_pb2.SecretListResponse(items=listed, environment_name="main")

    async def secret_delete(self, request: api_pb2.SecretDeleteRequest, caller: Caller) -> Empty:
        self.secrets.pop(by_id(self.secrets, request.secret_id).id)
        return Empty()

    @staticmethod
    def _named(each: Iterable[T]) -> list[T]:
        return sorted((one for one in each if one.name), key=lambda one: -one.created_at)

    # Dicts

    async def dict_get_or_create(
        self, request: api_pb2.DictGetOrCreateRequest, caller: Caller
    ) -> api_pb2.DictGetOrCreateResponse:
        found = get_or_create(Dict, self.dicts, "di", request)
        found.items |= {entry.key: entry.value for entry in request.data}
        return api_pb2.DictGetOrCreateResponse(dict_id=found.id, metadata=found.metadata())

    async def dict_get_by_id(self, request: api_pb2.DictGetByIdRequest, caller: Caller) -> api_pb2.DictGetByIdResponse:
        return api_pb2.DictGetByIdResponse(dict_id=request.dict_id, metadata=by_id(self.dicts, request.dict_id).metadata())

    async def dict_heartbeat(self, request: api_pb2.DictHeartbeatRequest, caller: Caller) -> Empty:
        return Empty()

    async def dict_delete(self, request: api_pb2.DictDeleteRequest, caller: Caller) -> Empty:
        self.dicts.pop(by_id(self.dicts, request.dict_id).id)
        return Empty()

    async def dict_list(self, request: api_pb2.DictListRequest, caller: Caller) -> api_pb2.DictListResponse:
        listed = [
            api_pb2.DictListResponse.DictInfo(name=one.name, created_at=one.created_at, dict_id=one.id, metadata=one.metadata())
            for one in self._named(self.dicts.values())
        ]
        return api_pb2.DictListResponse(dicts=listed, environment_name="main")

    async def dict_clear(self, request: api_pb2.DictClearRequest, caller: Caller) -> Empty:
        by_id(self.dicts, request.dict_id).items.clear()
        return Empty()

    async def dict_get(self, request: api_pb2.DictGetRequest, caller: Caller) -> api_pb2.DictGetResponse:
        items = by_id(self.dicts, request.dict_id).items
        return api_pb2.DictGetResponse(found=request.key in items, value=items.get(request.key))

    async def dict_contains(self, request: api_pb2.DictContainsRequest, caller: Caller) -> api_pb2.DictContainsResponse:
        return api_pb2.DictContainsResponse(found=request.key in by_id(self.dicts, request.dict_id).items)

    async def dict_len(self, request: api_pb2.DictLenRequest, caller: Caller) -> api_pb2.DictLenResponse:
        return api_pb2.DictLenResponse(len=len(by_id(self.dicts, request.dict_id).items))

    async def dict_update(self, request: api_pb2.DictUpdateRequest, caller: Caller) -> api_pb2.DictUpdateResponse:
        items = by_id(self.dicts, request.dict_id).items
        updates = {entry.key: entry.value for entry in request.updates}
        created = not updates.keys() <= items.keys()
        items |= {key: value for key, value in updates.items() if not (request.if_not_exists and key in items)}
        return api_pb2.DictUpdateResponse(created=created)

    async def dict_pop(self, request: api_pb2.DictPopRequest, caller: Caller) -> api_pb2.DictPopResponse:
        items = by_id(self.dicts, request.dict_id).items
        return api_pb2.DictPopResponse(found=request.key in items, value=items.pop(request.key, None))

    async def dict_contents(self, request: api_pb2.DictContentsRequest, caller: Caller) -> AsyncIterator[api_pb2.DictEntry]:
        for key, value in list(by_id(self.dicts, request.dict_id).items.items()):
            yield api_pb2.DictEntry(key=key if request.keys else b"", value=value if request.values else b"")
