"""What the client sent when it deployed, and what a container therefore has around it."""

from __future__ import annotations

import modal
import pytest

from .client import CHECKOUT, ModalServer

pytestmark = pytest.mark.slow


def test_the_definition_is_as_the_client_sent_it(server: ModalServer) -> None:
    app = server.app("sample")
    defined = app["functions"]["defined"]
    expected = {
        "gpu": ["H100", "A100-80GB:2"],
        "cpu": 2.0,
        "memory": 4096,
        "timeout": 600,
        "startup_timeout": 90,
        "max_containers": 3,
        "buffer_containers": 1,
        "scaledown_window": 120,
        "regions": ["eu"],
        "volumes": {"/models": {"name": "sample-files", "read_only": False, "sub_path": ""}},
        "secrets": [{"name": "sample-secret", "keys": ["SAMPLE_TOKEN"]}],
        "schedule": {"cron": {"cronString": "0 4 * * *", "timezone": "UTC"}},
    }
    assert {name: defined[name] for name in expected} == expected
    speaker = app["functions"]["Speaker.*"]
    assert (speaker["max_inputs"], speaker["max_containers"], speaker["methods"]) == (3, 2, ["greet", "together", "where"])
    assert list(speaker["parameters"]) == ["greeting"]
    assert app["classes"] == ["Broken", "Speaker"]
    assert app["state"] == "APP_STATE_DEPLOYED"


def test_the_images_commands_are_kept_in_order(server: ModalServer) -> None:
    image = server.app("sample")["functions"]["defined"]["image"]
    commands = image["commands"]
    wanted = ("FROM python:3.11", "apt-get install -y ffmpeg", "numpy==1.26.4", "ENV SAMPLE_LEVEL=42", "import numpy")
    places = [next(number for number, command in enumerate(commands) if part in command) for part in wanted]
    assert places == sorted(places)
    assert image["env"]["SAMPLE_LEVEL"] == "42"
    assert "/root/tests/modal_server/sample_app.py" in server.app("sample")["functions"]["defined"]["files"]


def test_a_container_has_what_the_app_gave_it_and_nothing_else(server: ModalServer) -> None:
    around = modal.Function.from_name("sample", "surroundings").remote(str(CHECKOUT))
    given = {"level": "42", "token": "hush", "inline": "here", "inherited": [], "remote": True}
    assert {name: around[name] for name in given} == given
    assert around["task"] == server.calls[-1]["container"]
    assert not around["not_added"], "a module that is not in the image cannot be imported"
    if server.isolated:
        assert around["source"] == "/root/tests/modal_server/sample_app.py"
        assert (around["home"], around["cwd"], around["user"]) == ("/root", "/root", 0)
        assert not around["checkout"]
        assert set(around["tmp"]) <= set(CHECKOUT.parts), "but for the empty folders that lead to what is hidden"


def test_autoscaling_can_be_changed_while_deployed(server: ModalServer) -> None:
    settings = modal.Function.from_name("sample", "defined").autoscaler.update(max_containers=9)
    assert (settings.max_containers, settings.scaledown_window) == (9, 120)
    assert server.app("sample")["functions"]["defined"]["max_containers"] == 9
