"""One container: a subprocess with the real `modal._container_entrypoint`, its socket, its logs, its end."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from modal_proto import api_pb2

from .images import image_env, image_workdir, layer_copies
from .logs import LogStore
from .objects import Objects
from .rootfs import LAUNCH, Rootfs
from .rpc import Dispatcher, Endpoint
from .state import Container, Function, World, new_id
from .volume_files import VolumeFiles

STDOUT, STDERR = api_pb2.FILE_DESCRIPTOR_STDOUT, api_pb2.FILE_DESCRIPTOR_STDERR
LAST_WORDS = 0.5
"""Seconds after a call's end in which what is printed still counts as its own: pipe and socket are read independently."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Containers:
    """Starts containers and sees them end."""

    def __init__(
        self, world: World, rootfs: Rootfs, volumes: VolumeFiles, objects: Objects, logs: LogStore, env: dict[str, str]
    ) -> None:
        self.world, self.rootfs, self.volumes, self.objects, self.logs = world, rootfs, volumes, objects, logs
        self.extra_env = env
        self.dispatcher: Dispatcher | None = None
        self.ended: Callable[[Container], None] = lambda container: None
        self.watchers: set[asyncio.Task[None]] = set()

    def start(self, function: Function) -> Container:
        task_id = new_id("ta")
        folder = self.world.folder / "c" / task_id[-8:]
        folder.mkdir(parents=True)
        container = Container(task_id, function, function.definition_id, folder)
        self.world.containers[task_id] = container
        watcher = asyncio.create_task(self._live(container))
        self.watchers.add(watcher)
        watcher.add_done_callback(self.watchers.discard)
        return container

    def kill(self, container: Container, reason: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to the container's process; SIGKILL also to everything it started."""
        container.reason = container.reason or reason
        if container.process is None or container.process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(container.process.pid, number)
            # Not process.send_signal: subprocess polls first, and takes the exit status from asyncio's own watcher.
            os.kill(container.process.pid, number)

    async def interrupt(self, container: Container, reason: str, grace: float) -> None:
        """SIGINT, time to leave, then SIGKILL: what preemption and shutting down are on Modal."""
        self.kill(container, reason, signal.SIGINT)
        deadline = time.time() + grace
        while container.alive and time.time() < deadline:
            await container.signal.wait(deadline - time.time())
        if container.alive:
            self.kill(container, reason)

    async def _live(self, container: Container) -> None:
        assert self.dispatcher is not None
        try:
            plan = await asyncio.to_thread(self._prepare, container)
            endpoint = Endpoint(self.dispatcher, container)
            async with endpoint:
                await endpoint.start(path=str(container.folder / "api.sock"))
                await self._run(container, plan)
                endpoint.drop()
        except (OSError, LookupError) as error:
            self._complain(container, f"The container could not be started: {error}")
        finally:
            container.state, container.ended_at = "dead", time.time()
            container.reason = container.reason or ("exited" if container.exit_code == 0 else "crashed")
            self.ended(container)
            container.signal.fire()
            await asyncio.to_thread(shutil.rmtree, container.folder, ignore_errors=True)

    async def _run(self, container: Container, plan: dict[str, Any]) -> None:
        path = container.folder / "plan.json"
        path.write_text(json.dumps(plan))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(LAUNCH), str(path)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        container.process, container.pid = process, process.pid
        if container.reason:
            self.kill(container, container.reason)
        assert process.stdout is not None and process.stderr is not None
        readers = [
            asyncio.create_task(self._read(container, process.stdout, STDOUT)),
            asyncio.create_task(self._read(container, process.stderr, STDERR)),
        ]
        container.exit_code = await process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.wait(readers, timeout=5)

    async def _read(self, container: Container, stream: asyncio.StreamReader, descriptor: int) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        rest = ""
        while data := await stream.read(1 << 16):
            *lines, rest = (rest + decoder.decode(data)).split("\n")
            for line in lines:
                self._log(container, line + "\n", descriptor)
        if rest:
            self._log(container, rest, descriptor)

    def _log(self, container: Container, text: str, descriptor: int) -> None:
        sole = next(iter(container.running.values())) if len(container.running) == 1 else None
        if not container.running and time.time() - container.idle_since < LAST_WORDS:
            sole = container.last
        self.logs.add(container, text, descriptor, sole)

    def _complain(self, container: Container, message: str) -> None:
        container.init_result = api_pb2.GenericResult(
            status=api_pb2.GenericResult.GENERIC_STATUS_INIT_FAILURE, exception=message
        )
        self._log(container, message + "\n", STDERR)

    def _prepare(self, container: Container) -> dict[str, Any]:
        function = container.function
        definition = function.definition
        tree = self.rootfs.tree(list(definition.mount_ids), layer_copies(self.world, definition.image_id))
        mounts = []
        for mount in definition.volume_mounts:
            view = self.volumes.view(mount.volume_id, container.folder / mount.volume_id)
            container.views[mount.volume_id] = view
            place = view.folder / mount.sub_path.strip("/") if mount.sub_path else view.folder
            place.mkdir(parents=True, exist_ok=True)
            mounts.append((place, mount.mount_path.rstrip("/"), mount.read_only))
        plan = self.rootfs.plan(container.folder, tree, mounts)
        (container.folder / "arguments").write_bytes(self._arguments(container).SerializeToString())
        plan["env"] = self._environment(container, plan["home"], plan["run"], plan["site"])
        workdir = image_workdir(self.world, definition.image_id)
        if workdir and plan["namespace"] and workdir != "/":
            plan["workdir"] = workdir
        plan["argv"] = [sys.executable, "-m", "modal._container_entrypoint"]
        plan["parent"] = os.getpid()
        return plan

    def _environment(self, container: Container, home: str, run: str, site: str) -> dict[str, str]:
        """Nothing of this process's own environment: the image's, then the secrets in their order, then Modal's."""
        definition = container.function.definition
        env = {"PATH": PATH, "HOME": home, "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", **self.extra_env}
        env |= image_env(self.world, definition.image_id)
        for secret_id in definition.secret_ids:
            env |= self.objects.secrets[secret_id].env
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [site, home, env.get("PYTHONPATH", "")]))
        return env | {
            "MODAL_IS_REMOTE": "1",
            "MODAL_SERVER_URL": f"unix://{run}/api.sock",
            "MODAL_CONTAINER_ARGUMENTS_PATH": f"{run}/arguments",
            "MODAL_TASK_ID": container.id,
            "MODAL_IMAGE_ID": definition.image_id,
            "MODAL_ENVIRONMENT": container.function.app.environment,
            "MODAL_CLOUD_PROVIDER": "CLOUD_PROVIDER_LOCAL",
            "MODAL_REGION": "local",
        }

    def _arguments(self, container: Container) -> api_pb2.ContainerArguments:
        function, app = container.function, container.function.app
        base = function.base or function
        layout = api_pb2.AppLayout(function_ids=app.functions, class_ids=app.classes)
        layout.function_ids[base.tag] = base.id
        wanted = {*layout.function_ids.values(), *layout.class_ids.values(), base.id, function.id}
        wanted |= {dependency.object_id for dependency in function.definition.object_dependencies}
        for object_id in wanted:
            layout.objects.append(self.objects.handle(object_id))
        return api_pb2.ContainerArguments(
            task_id=container.id,
            function_id=function.id,
            app_id=app.id,
            function_def=function.definition,
            serialized_params=function.params,
            environment_name=app.environment,
            app_layout=layout,
        )


def describe(container: Container) -> dict[str, Any]:
    return {
        "id": container.id,
        "function": container.function.tag,
        "function_id": container.function.id,
        "pid": container.pid,
        "state": container.state,
        "reason": container.reason,
        "exit_code": container.exit_code,
        "started_at": container.started_at,
        "ready_at": container.ready_at,
        "ended_at": container.ended_at,
        "served": container.served,
        "running": [item.call.id for item in container.running.values()],
        "command": shlex.join([sys.executable, "-m", "modal._container_entrypoint"]),
    }
