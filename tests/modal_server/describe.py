"""What the server saw, as JSON: calls with their attempts, and an app as the client really sent it."""

from __future__ import annotations

from typing import Any

from google.protobuf.json_format import MessageToDict
from modal_proto import api_pb2

from .images import image_env, layer_copies, layers
from .objects import Objects
from .rootfs import Rootfs
from .state import App, Call, Function, Input, World
from .volume_files import VolumeFiles


def call(one: Call) -> dict[str, Any]:
    """`state`: pending, running, succeeded, failed, timed out, cancelled, internal failure or oom; of its inputs the worst."""
    states = [_state(item) for item in one.inputs] or ["pending"]
    unfinished = [state for state in states if state in {"running", "pending"}]
    attempts = [attempt for item in one.inputs for attempt in item.attempts]
    return {
        "id": one.id,
        "function": one.inputs[0].tag if one.inputs else one.function.tag,
        "function_id": one.function.id,
        "app": one.function.app.name,
        "state": (unfinished or [state for state in states if state != "succeeded"] or states)[0],
        "spawned": one.invocation == api_pb2.FUNCTION_CALL_INVOCATION_TYPE_ASYNC,
        "expired": one.expired,
        "created_at": one.created_at,
        "began_at": min((attempt.began for attempt in attempts), default=0.0),
        "ended_at": max((attempt.ended for attempt in attempts), default=0.0),
        "released": all(item.container is None for item in one.inputs),
        "attempts": [vars(attempt) for attempt in attempts],
        "container": attempts[-1].container_id if attempts else "",
        "gpu": gpus(one.function),
        "inputs": [_input(item) for item in one.inputs],
    }


def _input(item: Input) -> dict[str, Any]:
    return {
        "id": item.id,
        "idx": item.idx,
        "state": _state(item),
        "retry_count": item.retry_count,
        "bytes": len(item.payload.args),
        "by_blob": bool(item.payload.args_blob_id),
        "attempts": [vars(attempt) for attempt in item.attempts],
        "cancelled_at": item.cancelled_at,
        "released": item.container is None,
    }


def _state(item: Input) -> str:
    if item.output is None:
        return item.state
    names = {1: "succeeded", 2: "failed", 3: "cancelled", 4: "timed out", 6: "internal failure", 10: "oom"}
    return names.get(item.output.result.status, "failed")


def gpus(function: Function) -> list[str]:
    if function.ranked_gpus:
        return function.ranked_gpus
    gpu = function.definition.resources.gpu_config
    name = f"{gpu.gpu_type}:{gpu.count}" if gpu.count > 1 else gpu.gpu_type
    return [name] if name else []


class Describer:
    def __init__(self, world: World, objects: Objects, volumes: VolumeFiles, rootfs: Rootfs) -> None:
        self.world, self.objects, self.volumes, self.rootfs = world, objects, volumes, rootfs

    def app(self, one: App) -> dict[str, Any]:
        functions = [self.world.functions[function_id] for function_id in one.functions.values()]
        return {
            "id": one.id,
            "name": one.name,
            "state": api_pb2.AppState.Name(api_pb2.AppState.ValueType(one.state)),
            "version": one.version,
            "tags": one.tags,
            "functions": {each.tag: self.function(each) for each in functions},
            "classes": sorted(one.classes),
        }

    def function(self, one: Function) -> dict[str, Any]:
        definition, scaling = one.definition, one.scaling()
        resources, retries = definition.resources, definition.retry_policy
        volumes = self.volumes.volumes
        return {
            "id": one.id,
            "gpu": gpus(one),
            "cpu": resources.milli_cpu / 1000,
            "memory": resources.memory_mb,
            "ephemeral_disk": resources.ephemeral_disk_mb,
            "timeout": definition.timeout_secs,
            "startup_timeout": definition.startup_timeout_secs,
            "min_containers": scaling.min_containers,
            "max_containers": scaling.max_containers,
            "buffer_containers": scaling.buffer_containers,
            "scaledown_window": scaling.scaledown_window,
            "max_inputs": definition.max_concurrent_inputs,
            "target_inputs": definition.target_concurrent_inputs,
            "retries": retries.retries,
            "regions": list(definition.scheduler_placement.regions),
            "cloud": definition.cloud_provider_str,
            "nonpreemptible": definition.scheduler_placement.nonpreemptible,
            "memory_snapshot": definition.checkpointing_enabled,
            "single_use": definition.single_use_containers,
            "schedule": MessageToDict(definition.schedule),
            "volumes": {
                each.mount_path: {
                    "name": volumes[each.volume_id].name if each.volume_id in volumes else "",
                    "read_only": each.read_only,
                    "sub_path": each.sub_path,
                }
                for each in definition.volume_mounts
            },
            "secrets": [self._secret(secret_id) for secret_id in definition.secret_ids],
            "methods": sorted(definition.method_definitions),
            "parameters": {each.name: MessageToDict(each) for each in definition.class_parameter_info.schema},
            "files": self._files(definition),
            "image": self.image(definition.image_id),
            "raw": MessageToDict(definition, preserving_proto_field_name=True),
        }

    def _secret(self, secret_id: str) -> dict[str, Any]:
        secret = self.objects.secrets[secret_id]
        return {"name": secret.name, "keys": sorted(secret.env)}

    def _files(self, definition: api_pb2.Function) -> list[str]:
        """Paths of the local files that are added when a container starts."""
        return sorted(entry.filename for each in definition.mount_ids for entry in self.rootfs.mounts.get(each, ()))

    def image(self, image_id: str) -> dict[str, Any]:
        """Its commands in the order in which they would be built, and what goes with them."""
        all_layers = list(layers(self.world, image_id))
        return {
            "id": image_id,
            "commands": [command for layer in all_layers for command in layer.image.dockerfile_commands],
            "env": image_env(self.world, image_id),
            "context_files": {
                entry.filename: entry.data.decode(errors="replace")
                for layer in all_layers
                for entry in layer.image.context_files
            },
            "copied_files": sorted(
                entry.filename for mount, _ in layer_copies(self.world, image_id) for entry in self.rootfs.mounts.get(mount, ())
            ),
            "gpu": [layer.image.gpu_config.gpu_type for layer in all_layers if layer.image.gpu_config.gpu_type],
            "secrets": [self._secret(secret_id) for layer in all_layers for secret_id in layer.image.secret_ids],
            "build_functions": [layer.image.build_function.definition for layer in all_layers if layer.build_function_id],
            "builder_version": all_layers[-1].builder_version if all_layers else "",
        }
