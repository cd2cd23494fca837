"""Apps and all around them: hello, tokens, environments; creating, publishing, listing and stopping apps."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.empty_pb2 import Empty
from modal._utils.jwt_utils import DecodedJwt
from modal_proto import api_pb2

from .images import BUILDER_VERSION
from .objects import Objects
from .rpc import Caller, not_found
from .scheduler import Scheduler
from .state import App, World, new_id

EPHEMERAL = {api_pb2.APP_STATE_EPHEMERAL, api_pb2.APP_STATE_INITIALIZING}
ENVIRONMENT = "main"


class AppService:
    def __init__(self, world: World, scheduler: Scheduler, objects: Objects) -> None:
        self.world, self.scheduler, self.objects = world, scheduler, objects

    # The workspace

    async def client_hello(self, request: Empty, caller: Caller) -> api_pb2.ClientHelloResponse:
        return api_pb2.ClientHelloResponse(image_builder_version=BUILDER_VERSION)

    async def auth_token_get(self, request: api_pb2.AuthTokenGetRequest, caller: Caller) -> api_pb2.AuthTokenGetResponse:
        return api_pb2.AuthTokenGetResponse(token=DecodedJwt.encode_without_signature({"exp": time.time() + 3600}))

    async def workspace_name_lookup(self, request: Empty, caller: Caller) -> api_pb2.WorkspaceNameLookupResponse:
        return api_pb2.WorkspaceNameLookupResponse(workspace_name="local", username="tests")

    async def token_flow_create(
        self, request: api_pb2.TokenFlowCreateRequest, caller: Caller
    ) -> api_pb2.TokenFlowCreateResponse:
        """`modal token new`, whose user signs in on a web page; here the sign-in has happened by then."""
        return api_pb2.TokenFlowCreateResponse(token_flow_id="tf-1", web_url="http://127.0.0.1/sign-in", wait_secret="wait")

    async def token_flow_wait(self, request: api_pb2.TokenFlowWaitRequest, caller: Caller) -> api_pb2.TokenFlowWaitResponse:
        return api_pb2.TokenFlowWaitResponse(
            token_id=self.world.token_id, token_secret=self.world.token_secret, workspace_username="tests"
        )

    async def workspace_billing_report(
        self, request: api_pb2.WorkspaceBillingReportRequest, caller: Caller
    ) -> AsyncIterator[api_pb2.WorkspaceBillingReportItem]:
        for item in self.world.bills:
            if request.start_timestamp.seconds <= item.interval.seconds < request.end_timestamp.seconds:
                yield item

    async def token_info_get(self, request: api_pb2.TokenInfoGetRequest, caller: Caller) -> api_pb2.TokenInfoGetResponse:
        return api_pb2.TokenInfoGetResponse(token_id=self.world.token_id, workspace_id="ac-local", workspace_name="local")

    async def environment_get_or_create(
        self, request: api_pb2.EnvironmentGetOrCreateRequest, caller: Caller
    ) -> api_pb2.EnvironmentGetOrCreateResponse:
        name = request.deployment_name or ENVIRONMENT
        if name != ENVIRONMENT:
            raise not_found(f"Environment '{name}' not found")
        settings = api_pb2.EnvironmentSettings(image_builder_version=BUILDER_VERSION, webhook_suffix="")
        return api_pb2.EnvironmentGetOrCreateResponse(
            environment_id="en-" + "0" * 22, metadata=api_pb2.EnvironmentMetadata(name=name, settings=settings)
        )

    async def environment_list(self, request: Empty, caller: Caller) -> api_pb2.EnvironmentListResponse:
        item = api_pb2.EnvironmentListItem(name=ENVIRONMENT, default=True, environment_id="en-" + "0" * 22)
        return api_pb2.EnvironmentListResponse(items=[item])

    # Apps

    def _app(self, app_id: str) -> App:
        if app_id not in self.world.apps:
            raise not_found(f"App {app_id} not found")
        return self.world.apps[app_id]

    def _page(self, app: App) -> str:
        return f"https://modal.com/apps/local/{ENVIRONMENT}/{app.id}"

    async def app_create(self, request: api_pb2.AppCreateRequest, caller: Caller) -> api_pb2.AppCreateResponse:
        app = App(new_id("ap"), request.description, request.app_state, tags=dict(request.tags))
        self.world.apps[app.id] = app
        return api_pb2.AppCreateResponse(app_id=app.id, app_page_url=self._page(app), app_logs_url=self._page(app) + "/logs")

    async def app_get_or_create(self, request: api_pb2.AppGetOrCreateRequest, caller: Caller) -> api_pb2.AppGetOrCreateResponse:
        app = self.world.deployed(request.app_name)
        if app is None:
            if request.object_creation_type != api_pb2.OBJECT_CREATION_TYPE_CREATE_IF_MISSING:
                raise not_found(f"App '{request.app_name}' not found in environment '{ENVIRONMENT}'")
            app = App(new_id("ap"), request.app_name, api_pb2.APP_STATE_DEPLOYED)
            self.world.apps[app.id] = app
        return api_pb2.AppGetOrCreateResponse(app_id=app.id)

    async def app_get_by_deployment_name(
        self, request: api_pb2.AppGetByDeploymentNameRequest, caller: Caller
    ) -> api_pb2.AppGetByDeploymentNameResponse:
        app = self.world.deployed(request.name)
        response = api_pb2.AppGetByDeploymentNameResponse(environment_name=ENVIRONMENT)
        if app is not None:
            response.app_id = app.id
            response.lifecycle.CopyFrom(app.lifecycle())
        elif stopped := [each for each in self.world.apps.values() if each.name == request.name and each.version]:
            response.previous_app_id = stopped[-1].id
            response.lifecycle.CopyFrom(stopped[-1].lifecycle())
        return response

    async def app_get_layout(self, request: api_pb2.AppGetLayoutRequest, caller: Caller) -> api_pb2.AppGetLayoutResponse:
        app = self._app(request.app_id)
        layout = api_pb2.AppLayout(function_ids=app.functions, class_ids=app.classes)
        layout.objects.extend(self.objects.handle(each) for each in [*app.functions.values(), *app.classes.values()])
        return api_pb2.AppGetLayoutResponse(app_layout=layout)

    async def app_publish(self, request: api_pb2.AppPublishRequest, caller: Caller) -> api_pb2.AppPublishResponse:
        app = self._app(request.app_id)
        app.functions, app.classes = dict(request.function_ids), dict(request.class_ids)
        app.tags = dict(request.tags) or app.tags
        if request.app_state:
            app.state = request.app_state
        if request.name:
            app.name = request.name
        definitions = {tag: self.world.functions[each].definition_id for tag, each in app.functions.items()}
        if definitions == app.published:  # the client says "no changes detected" when it gets no time
            return api_pb2.AppPublishResponse(url=self._page(app))
        app.published = definitions
        app.version += 1
        app.deployed_at = time.time()
        self.scheduler.published(app)
        return api_pb2.AppPublishResponse(url=self._page(app), deployed_at=app.deployed_at)

    async def app_heartbeat(self, request: api_pb2.AppHeartbeatRequest, caller: Caller) -> Empty:
        self._app(request.app_id)
        return Empty()

    async def app_client_disconnect(self, request: api_pb2.AppClientDisconnectRequest, caller: Caller) -> Empty:
        app = self._app(request.app_id)
        if app.state in EPHEMERAL:
            self._stop(app)
        return Empty()

    async def app_stop(self, request: api_pb2.AppStopRequest, caller: Caller) -> Empty:
        self._stop(self._app(request.app_id))
        return Empty()

    def _stop(self, app: App) -> None:
        app.state, app.stopped_at = api_pb2.APP_STATE_STOPPED, time.time()
        self.scheduler.stopped(app)

    async def app_list(self, request: api_pb2.AppListRequest, caller: Caller) -> api_pb2.AppListResponse:
        listed = [
            api_pb2.AppListResponse.AppListItem(
                app_id=app.id,
                description=app.name,
                name=app.name,
                state=app.state,  # type: ignore[arg-type]
                created_at=app.created_at,
                stopped_at=app.stopped_at,
                n_running_tasks=sum(each.alive for each in self.world.containers.values() if each.function.app is app),
            )
            for app in self.world.apps.values()
        ]
        return api_pb2.AppListResponse(apps=listed)

    async def app_get_lifecycle(
        self, request: api_pb2.AppGetLifecycleRequest, caller: Caller
    ) -> api_pb2.AppGetLifecycleResponse:
        return api_pb2.AppGetLifecycleResponse(lifecycle=self._app(request.app_id).lifecycle())

    async def app_get_tags(self, request: api_pb2.AppGetTagsRequest, caller: Caller) -> api_pb2.AppGetTagsResponse:
        return api_pb2.AppGetTagsResponse(tags=self._app(request.app_id).tags)

    async def app_set_tags(self, request: api_pb2.AppSetTagsRequest, caller: Caller) -> Empty:
        self._app(request.app_id).tags = dict(request.tags)
        return Empty()

    # Containers, as a client sees them

    async def task_list(self, request: api_pb2.TaskListRequest, caller: Caller) -> api_pb2.TaskListResponse:
        alive = [each for each in self.world.containers.values() if each.alive]
        tasks = [
            api_pb2.TaskStats(
                task_id=each.id,
                app_id=each.function.app.id,
                app_description=each.function.app.name,
                started_at=each.ready_at,
                enqueued_at=each.started_at,
            )
            for each in alive
            if request.app_id in {"", each.function.app.id}
        ]
        return api_pb2.TaskListResponse(tasks=tasks)

    async def task_get_info(self, request: api_pb2.TaskGetInfoRequest, caller: Caller) -> api_pb2.TaskGetInfoResponse:
        container = self.world.containers.get(request.task_id)
        if container is None:
            raise not_found(f"Container {request.task_id} not found")
        info = api_pb2.TaskInfo(
            id=container.id,
            enqueued_at=container.started_at,
            started_at=container.ready_at,
            finished_at=container.ended_at,
            gpu_config=container.function.definition.resources.gpu_config,
        )
        return api_pb2.TaskGetInfoResponse(app_id=container.function.app.id, info=info)

    async def proxy_get(self, request: api_pb2.ProxyGetRequest, caller: Caller) -> Any:
        raise not_found(f"Proxy '{request.name}' not found")
