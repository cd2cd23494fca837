"""A small app that the tests deploy: one of each kind of function that Modal has and we use."""

from __future__ import annotations

import time

import modal

app = modal.App("sample")
image = modal.Image.debian_slim(python_version="3.11").pip_install("numpy==1.26.4").env({"SAMPLE_LEVEL": "42"})
volume = modal.Volume.from_name("sample-files", create_if_missing=True)
store = modal.Dict.from_name("sample-dict", create_if_missing=True)
secret = modal.Secret.from_name("sample-secret")


@app.function(image=image, scaledown_window=60)
def add(a: int, b: int) -> int:
    print(f"adding {a} and {b}")
    return a + b


@app.function(image=image, timeout=20)
def sleep(seconds: float) -> str:
    print("sleeping", flush=True)
    deadline = time.time() + seconds
    while time.time() < deadline:
        time.sleep(0.02)
    return "slept"
