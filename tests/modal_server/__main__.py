"""`python -m tests.modal_server`: run the server by itself; its first line is the environment to set, as JSON."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from .control import Control
from .scaling import Limits
from .server import Options, Server


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.modal_server", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="gRPC port on loopback; 0: any")
    parser.add_argument("--isolation", choices=("auto", "namespace", "none"), default="auto")
    parser.add_argument("--containers", type=int, default=Limits.containers, help="at once on this machine")
    parser.add_argument("--grace", type=float, default=Limits.grace, help="seconds from SIGINT to SIGKILL")
    parser.add_argument("--cancel-grace", type=float, default=Limits.cancel_grace, help="seconds a cancelled input may go on")
    parser.add_argument("--failed-starts", type=int, default=Limits.failed_starts, help="until what waits for them fails")
    parser.add_argument("--container-env", action="append", default=[], metavar="NAME=VALUE", help="set in all containers")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end with the process that started it")
    return parser.parse_args()


async def serve(arguments: argparse.Namespace) -> None:
    limits = Limits(arguments.containers, arguments.grace, arguments.cancel_grace, arguments.failed_starts)
    env = dict(pair.split("=", 1) for pair in arguments.container_env)
    folder = Path(tempfile.mkdtemp(prefix="modal-"))
    try:
        server = Server(Options(folder, arguments.port, arguments.isolation, env, limits))
    except OSError as error:
        shutil.rmtree(folder)
        sys.exit(str(error))
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    if arguments.until_stdin_closes:
        threading.Thread(target=_watch_stdin, args=[lambda: loop.call_soon_threadsafe(ended.set)], daemon=True).start()
    await server.start(Control(server, ended.set).routes())
    about = {"env": server.env(), "control": server.blobs.base, "isolated": server.rootfs.isolated, "pid": os.getpid()}
    sys.stdout.write(json.dumps(about) + "\n")
    sys.stdout.flush()
    try:
        await ended.wait()
    finally:
        await server.close()


def _watch_stdin(ended: Callable[[], object]) -> None:
    sys.stdin.read()
    with contextlib.suppress(RuntimeError):
        ended()


if __name__ == "__main__":
    if sys.version_info < (3, 12):  # later versions do by themselves: no thread per container, no race for its exit status
        asyncio.set_child_watcher(asyncio.PidfdChildWatcher())
    asyncio.run(serve(options()))
