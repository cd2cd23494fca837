"""Functions and classes: created by a deploy, looked up by name, bound to parameters and options."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from grpclib import Status
from modal_proto import api_pb2

from .rpc import Caller, not_found, refuse
from .scheduler import Scheduler
from .state import App, Function, World, new_id
from .variants import copy_field, refresh


class FunctionService:
    def __init__(self, world: World, scheduler: Scheduler, web_url: Callable[[Function, str], str]) -> None:
        self.world, self.scheduler, self.web_url = world, scheduler, web_url

    def _app(self, app_id: str) -> App:
        if app_id not in self.world.apps:
            raise not_found(f"App {app_id} not found")
        return self.world.apps[app_id]

    def _function(self, function_id: str) -> Function:
        if function_id not in self.world.functions:
            raise not_found(f"Function {function_id} not found")
        return self.world.functions[function_id]

    def metadata(self, function: Function) -> api_pb2.FunctionHandleMetadata:
        """What a client needs to call it; for a class's service function, what it needs for each method."""
        definition = function.definition
        metadata = api_pb2.FunctionHandleMetadata(
            function_name=function.tag,
            function_type=definition.function_type,
            definition_id=function.definition_id,
            class_parameter_info=definition.class_parameter_info,
            function_schema=definition.function_schema,
            supported_input_formats=definition.supported_input_formats,
            supported_output_formats=definition.supported_output_formats,
            app_id=function.app.id,
            web_url=self.web_url(function, "") if definition.webhook_config.type else "",
            base_function_id=function.base.id if function.base else "",
        )
        for name, method in definition.method_definitions.items():
            metadata.method_handle_metadata[name].CopyFrom(
                api_pb2.FunctionHandleMetadata(
                    function_name=method.function_name,
                    function_type=method.function_type,
                    definition_id=function.definition_id,
                    is_method=True,
                    use_method_name=name,
                    function_schema=method.function_schema,
                    supported_input_formats=method.supported_input_formats,
                    supported_output_formats=method.supported_output_formats,
                    app_id=function.app.id,
                    web_url=self.web_url(function, name) if method.webhook_config.type else "",
                )
            )
        self.world.metadata[function.id] = metadata
        return metadata

    def _data(self, function: Function) -> api_pb2.FunctionData:
        if function.data is not None:
            return function.data
        data, definition = api_pb2.FunctionData(), function.definition
        shared = {field.name for field in data.DESCRIPTOR.fields} - {"ranked_functions"}
        for field, value in definition.ListFields():
            if field.name in shared:
                copy_field(data, field.name, value)
        ranked = data.ranked_functions.add(rank=0)
        ranked.function.CopyFrom(definition)
        return data

    async def function_precreate(
        self, request: api_pb2.FunctionPrecreateRequest, caller: Caller
    ) -> api_pb2.FunctionPrecreateResponse:
        app = self._app(request.app_id)
        function = self.world.functions.get(request.existing_function_id)
        if function is None:
            function = Function(new_id("fu"), app, request.function_name, api_pb2.Function())
            self.world.functions[function.id] = function
            function.definition.function_name = request.function_name
            function.definition.function_type = request.function_type
            function.definition.webhook_config.CopyFrom(request.webhook_config)
            function.definition.supported_input_formats.extend(request.supported_input_formats)
            function.definition.supported_output_formats.extend(request.supported_output_formats)
            for name, method in request.method_definitions.items():
                function.definition.method_definitions[name].CopyFrom(method)
        return api_pb2.FunctionPrecreateResponse(function_id=function.id, handle_metadata=self.metadata(function))

    async def function_create(self, request: api_pb2.FunctionCreateRequest, caller: Caller) -> api_pb2.FunctionCreateResponse:
        app = self._app(request.app_id)
        function = self.world.functions.get(request.existing_function_id)
        ranked = sorted(request.function_data.ranked_functions, key=lambda each: each.rank)
        definition = ranked[0].function if ranked else request.function
        definition.mount_ids.sort()  # a set on the client's side
        if function is None:
            function = Function(new_id("fu"), app, definition.function_name, definition)
            self.world.functions[function.id] = function
        new = definition.SerializeToString(deterministic=True)
        if new != function.definition.SerializeToString(deterministic=True):
            function.definition_id = new_id("de")
        function.definition, function.app = definition, app
        function.data = request.function_data if ranked else None
        function.ranked_gpus = [_gpu(each.function.resources) for each in ranked]
        return api_pb2.FunctionCreateResponse(
            function_id=function.id,
            function=definition,
            handle_metadata=self.metadata(function),
            function_data=self._data(function),
        )

    async def class_create(self, request: api_pb2.ClassCreateRequest, caller: Caller) -> api_pb2.ClassCreateResponse:
        class_id = request.existing_class_id or new_id("cs")
        self.world.classes[class_id] = (self._app(request.app_id), "")
        metadata = api_pb2.ClassHandleMetadata()
        self.world.metadata[class_id] = metadata
        return api_pb2.ClassCreateResponse(class_id=class_id, handle_metadata=metadata)

    async def class_get(self, request: api_pb2.ClassGetRequest, caller: Caller) -> api_pb2.ClassGetResponse:
        app = self._deployed(request.app_name)
        if request.object_tag not in app.classes:
            raise not_found(f"App '{request.app_name}' has no class '{request.object_tag}'")
        return api_pb2.ClassGetResponse(class_id=app.classes[request.object_tag], handle_metadata=api_pb2.ClassHandleMetadata())

    def _deployed(self, name: str) -> App:
        app = self.world.deployed(name)
        if app is None:
            raise not_found(f"App '{name}' not found in environment 'main'")
        return app

    async def function_get(self, request: api_pb2.FunctionGetRequest, caller: Caller) -> api_pb2.FunctionGetResponse:
        app, tag = self._deployed(request.app_name), request.object_tag
        if tag not in app.functions:
            reason = api_pb2.FunctionLookupError.REASON_CLASS_NAME_USED
            details = [api_pb2.FunctionLookupError(reason=reason)] if tag in app.classes else []
            raise refuse(Status.NOT_FOUND, f"App '{request.app_name}' has no function '{tag}'", *details)
        function = self.world.functions[app.functions[tag]]
        return api_pb2.FunctionGetResponse(
            function_id=function.id, handle_metadata=self.metadata(function), function=self._data(function)
        )

    async def function_get_by_id(
        self, request: api_pb2.FunctionGetByIdRequest, caller: Caller
    ) -> api_pb2.FunctionGetByIdResponse:
        function = self._function(request.function_id)
        return api_pb2.FunctionGetByIdResponse(function=self._data(function), handle_metadata=self.metadata(function))

    async def function_bind_params(
        self, request: api_pb2.FunctionBindParamsRequest, caller: Caller
    ) -> api_pb2.FunctionBindParamsResponse:
        """The same options and parameters of the same function are always the same variant, with containers of its own."""
        base = self._function(request.function_id)
        base = base.base or base
        key = request.serialized_params + b"\0" + request.function_options.SerializeToString(deterministic=True)
        variant_id = "fu-" + hashlib.sha256(base.id.encode() + key).hexdigest()[:22]
        variant = self.world.functions.get(variant_id)
        if variant is None:
            options = request.function_options if request.HasField("function_options") else None
            variant = Function(
                variant_id, base.app, base.tag, api_pb2.Function(), base=base, params=request.serialized_params, options=options
            )
            self.world.functions[variant_id] = variant
        refresh(variant)
        return api_pb2.FunctionBindParamsResponse(bound_function_id=variant_id, handle_metadata=self.metadata(variant))

    # Scaling

    async def function_update_scheduling_params(
        self, request: api_pb2.FunctionUpdateSchedulingParamsRequest, caller: Caller
    ) -> api_pb2.FunctionUpdateSchedulingParamsResponse:
        function = self._function(request.function_id)
        function.scaling().MergeFrom(request.settings)
        self.scheduler.scaling.schedule()
        return api_pb2.FunctionUpdateSchedulingParamsResponse(current_settings=function.scaling())

    async def function_get_scheduling_params(
        self, request: api_pb2.FunctionGetSchedulingParamsRequest, caller: Caller
    ) -> api_pb2.FunctionGetSchedulingParamsResponse:
        settings = self._function(request.function_id).scaling()
        configuration = api_pb2.AutoscalerConfiguration(settings=settings, static_settings=settings)
        return api_pb2.FunctionGetSchedulingParamsResponse(autoscaler_configuration=configuration)

    async def function_get_current_stats(
        self, request: api_pb2.FunctionGetCurrentStatsRequest, caller: Caller
    ) -> api_pb2.FunctionStats:
        pool = self.world.pool(self._function(request.function_id))
        running = sum(len(each.running) for each in pool.live())
        return api_pb2.FunctionStats(
            backlog=len(pool.pending), num_total_tasks=len(list(pool.live())), num_running_inputs=running
        )


def _gpu(resources: api_pb2.Resources) -> str:
    gpu = resources.gpu_config
    return f"{gpu.gpu_type}:{gpu.count}" if gpu.count > 1 else gpu.gpu_type
