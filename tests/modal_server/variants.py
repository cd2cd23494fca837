"""Variants of a function: `with_options`, `with_concurrency`, and a class's parameters."""

from __future__ import annotations

from modal_proto import api_pb2

from .state import Function

PLAIN_OPTIONS = (
    "retry_policy",
    "timeout_secs",
    "max_concurrent_inputs",
    "target_concurrent_inputs",
    "batch_max_size",
    "batch_linger_ms",
    "scheduler_placement",
    "cloud_provider_str",
    "routing_region",
)


def refresh(variant: Function) -> None:
    """The variant's definition: its base's as it is now, with the options applied."""
    base, options = variant.base, variant.options
    assert base is not None
    definition = api_pb2.Function()
    definition.CopyFrom(base.definition)
    variant.app, variant.definition_id = base.app, base.definition_id
    variant.ranked_gpus = list(base.ranked_gpus)
    if options is not None:
        _apply(options, definition)
        if options.HasField("resources") and options.resources.gpu_config.gpu_type:
            variant.ranked_gpus = []
    variant.definition = definition


def _apply(options: api_pb2.FunctionOptions, definition: api_pb2.Function) -> None:
    for name in PLAIN_OPTIONS:
        if options.HasField(name):  # type: ignore[arg-type]
            copy_field(definition, name, getattr(options, name))
    if options.HasField("resources"):
        definition.resources.MergeFrom(options.resources)
    if options.replace_secret_ids:
        definition.secret_ids[:] = options.secret_ids
    if options.replace_volume_mounts:
        definition.ClearField("volume_mounts")
        definition.volume_mounts.extend(options.volume_mounts)
    definition.mount_ids.extend(options.mount_ids)
    scaling = definition.autoscaler_settings
    if options.HasField("concurrency_limit"):
        scaling.max_containers = definition.concurrency_limit = options.concurrency_limit
    if options.HasField("warm_pool_size"):
        scaling.min_containers = options.warm_pool_size
    if options.HasField("buffer_containers"):
        scaling.buffer_containers = options.buffer_containers
    if options.HasField("task_idle_timeout_secs"):
        scaling.scaledown_window = options.task_idle_timeout_secs


def copy_field(message: api_pb2.Function | api_pb2.FunctionData, name: str, value: object) -> None:
    target = message.DESCRIPTOR.fields_by_name[name]
    if target.message_type is None and not target.is_repeated:
        setattr(message, name, value)
    elif target.is_repeated:
        getattr(message, name).MergeFrom(value)
    else:
        getattr(message, name).CopyFrom(value)
