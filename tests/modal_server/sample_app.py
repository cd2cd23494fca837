"""A small app that the tests deploy: one of each kind of function that Modal has.

Annotations are evaluated at once here: `modal.parameter()` refuses a class whose annotations are strings.
"""

import asyncio
import importlib.util
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import modal

app = modal.App("sample", include_source=False)
image = (
    modal.Image.debian_slim(python_version="3.11")
    .apt_install("ffmpeg")
    .pip_install("numpy==1.26.4")
    .env({"SAMPLE_LEVEL": os.environ.get("SAMPLE_LEVEL", "42")})
    .run_commands("python -c 'import numpy'")
    .add_local_python_source("tests.modal_server")
)
volume = modal.Volume.from_name("sample-files", create_if_missing=True)
notes = modal.Dict.from_name("sample-dict", create_if_missing=True)
secret = modal.Secret.from_name("sample-secret", required_keys=["SAMPLE_TOKEN"])


@app.function(image=image)
def add(a: int, b: int) -> int:
    print(f"adding {a} and {b}")
    return a + b


@app.function(image=image, timeout=20)
def work(seconds: float) -> float:
    """In small steps, so that it can be cancelled."""
    print("working")
    deadline = time.time() + seconds
    while time.time() < deadline:
        time.sleep(0.02)
    return seconds


@app.function(image=image, timeout=1, startup_timeout=60)
def too_long() -> None:
    time.sleep(60)


@app.function(image=image, timeout=20)
def stubborn(seconds: float) -> None:
    """Does not let itself be cancelled."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    time.sleep(seconds)


@app.function(image=image)
def refuse(value: int) -> None:
    raise ValueError(f"{value} is not wanted")


@app.function(image=image, retries=modal.Retries(max_retries=2, initial_delay=0.0, backoff_coefficient=1.0))
def third_time_lucky(key: str) -> int:
    tries = notes.get(key, 0) + 1
    notes[key] = tries
    if tries < 3:
        raise RuntimeError(f"try {tries}")
    return int(tries)


@app.function(image=image)
def count(to: int) -> Iterator[int]:
    yield from range(to)


@app.function(image=image)
def echo(data: bytes) -> bytes:
    return data


@app.function(image=image, secrets=[secret, modal.Secret.from_dict({"SAMPLE_INLINE": "here"})])
def surroundings(checkout: str) -> dict[str, Any]:
    return {
        "level": os.environ.get("SAMPLE_LEVEL"),
        "token": os.environ.get("SAMPLE_TOKEN"),
        "inline": os.environ.get("SAMPLE_INLINE"),
        "inherited": sorted(name for name in os.environ if name.startswith(("STENO_", "PYTEST_"))),
        "home": str(Path.home()),
        "source": __file__,
        "cwd": str(Path.cwd()),
        "checkout": Path(checkout, "pyproject.toml").exists(),
        "not_added": importlib.util.find_spec("infra") is not None,
        "user": os.getuid(),
        "tmp": os.listdir("/tmp"),  # noqa: PTH208
        "task": os.environ.get("MODAL_TASK_ID"),
        "remote": not modal.is_local(),
    }


@app.function(image=image, volumes={"/sample/files": volume})
def files(action: str, name: str, text: str = "") -> str | bool | list[str]:
    path = Path("/sample/files", name)
    if action == "write":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    elif action == "delete":
        path.unlink()
    elif action == "read":
        return path.read_text()
    elif action == "reload with it open":
        with path.open():
            volume.reload()
    elif action == "list":
        return sorted(entry.name for entry in path.iterdir())
    else:
        {"commit": volume.commit, "reload": volume.reload}[action]()
    return path.exists()


@app.function(image=image, volumes={"/weights": volume.read_only()})
def only_reads() -> str:
    try:
        Path("/weights/new").write_text("no")
    except OSError as error:
        return type(error).__name__ + str(error.errno)
    return "written"


@app.function(image=image)
async def through(a: int) -> int:
    """Calls another function, and makes many calls of it."""
    results = [result async for result in add.map.aio([a, a + 1], [1, 1])]
    return int(await add.remote.aio(results[0], results[1]))


@app.function(
    image=image,
    gpu=["H100", "A100-80GB:2"],
    cpu=2.0,
    memory=4096,
    timeout=600,
    startup_timeout=90,
    min_containers=0,
    max_containers=3,
    buffer_containers=1,
    scaledown_window=120,
    region="eu",
    schedule=modal.Cron("0 4 * * *"),
    volumes={"/models": volume},
    secrets=[secret],
)
def defined() -> None:
    """Only its definition is looked at."""


@app.cls(image=image, scaledown_window=2, max_containers=2, timeout=30)
@modal.concurrent(max_inputs=3)
class Speaker:
    greeting: str = modal.parameter(default="Hello")

    @modal.enter()
    def load(self) -> None:
        self.began = time.time()
        self.active = 0
        print("entered")

    @modal.method()
    async def greet(self, name: str) -> str:
        return f"{self.greeting}, {name}"

    @modal.method()
    async def together(self, seconds: float) -> int:
        """How many of these ran at once in this container."""
        self.active += 1
        most = self.active
        deadline = time.time() + seconds
        try:
            while time.time() < deadline:
                await asyncio.sleep(0.02)
                most = max(most, self.active)
        finally:
            self.active -= 1
        return most

    @modal.method()
    def where(self) -> str:
        return str(os.environ["MODAL_TASK_ID"])

    @modal.exit()
    def leave(self) -> None:
        notes["left"] = self.greeting
        print("left")


@app.cls(image=image)
class Broken:
    @modal.enter()
    def load(self) -> None:
        raise OSError("the weights are not there")

    @modal.method()
    def use(self) -> None:
        """Never gets this far."""


@app.function(image=image)
@modal.batched(max_batch_size=3, wait_ms=300)
def doubled(values: list[int]) -> list[int]:
    print(f"batch of {len(values)}")
    return [2 * value for value in values]


@app.function(image=image)
@modal.fastapi_endpoint()
def hello(name: str = "world") -> dict[str, str]:
    return {"hello": name}


@app.local_entrypoint()
def main(a: int = 1) -> None:
    print(f"the sum is {add.remote(a, 1)}")
