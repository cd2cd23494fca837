"""The compose file and the Dockerfile, as far as they can be checked without Docker: what they name is there."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
import yaml
from prefect.settings import get_current_settings

from deployments.up import database_url
from stenoflow.cli.up import up
from tests.settings_page import variables

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deployments" / "compose.yaml").read_text())
DOCKERFILE = (ROOT / "deployments" / "Dockerfile").read_text()
OURS = ("server", "worker")


def parsed(arguments: list[str]) -> dict[str, Any]:
    """The options of `steno up ARGUMENTS`; a usage error where it takes none of them."""
    assert arguments[0] == "up"
    return up.make_context("up", arguments[1:]).params


@pytest.mark.parametrize("service", OURS)
def test_the_services_run_a_command_that_there_is(service: str) -> None:
    options = parsed(COMPOSE["services"][service]["command"])
    assert options["verbose"]  # to the container's log
    assert options["no_worker"] == (service == "server")
    assert options["no_server"] == (service == "worker")


def test_a_mistyped_option_would_be_found() -> None:
    with pytest.raises(click.UsageError):
        parsed(["up", "--no-servers"])


@pytest.mark.parametrize("service", OURS)
def test_the_settings_that_are_given_exist(service: str) -> None:
    ours, given = set(variables()), COMPOSE["services"][service]["environment"]
    # Those without a default are not among them.
    unset = dict.fromkeys(("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"), "")
    prefect = get_current_settings().to_environment_variables() | unset
    unknown = [name for name in given if name.startswith("STENO_") and name not in ours]
    unknown += [name for name in given if name.startswith("PREFECT_") and name not in prefect]
    assert not unknown


def test_the_server_s_database_is_the_one_of_the_compose_file() -> None:
    url = COMPOSE["services"]["server"]["environment"]["STENO_DEPLOY__DATABASE_URL"]
    database = COMPOSE["services"]["database"]["environment"]
    shown = re.sub(r"\$\{[^}]*\}", "secret", url)
    user, name = database["POSTGRES_USER"], database["POSTGRES_DB"]
    assert database_url(shown) == f"postgresql+asyncpg://{user}:secret@database:5432/{name}"


def test_services_wait_for_the_health_of_what_they_need_and_nothing_is_published_to_the_network() -> None:
    services = COMPOSE["services"]
    for service in services.values():
        for needed, condition in service.get("depends_on", {}).items():
            assert condition["condition"] == "service_healthy"
            assert services[needed]["healthcheck"]["test"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or source.startswith("./")


def test_the_image_is_built_from_pinned_requirements_and_runs_as_nobody_special() -> None:
    lines = [line.strip() for line in DOCKERFILE.splitlines()]
    installs = [line for line in lines if "pip install" in line and "-r requirements" in line]
    assert installs and all(line.count("pip install") == line.count("--require-hashes") for line in installs)
    for extra in ("cpu", "gpu", "base", "build"):
        assert (ROOT / "requirements" / f"{extra}.txt").exists()
    copied = [shlex.split(line)[1] for line in lines if line.startswith("COPY ") and not line.startswith("COPY --from")]
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert set(packages) <= set(copied)
    assert [line for line in lines if line.startswith("USER ")] == ["USER steno"]
    assert parsed(["up", "--host", "0.0.0.0", "--verbose"])["host"] == "0.0.0.0"
    assert 'CMD ["up", "--host", "0.0.0.0", "--verbose"]' in lines


def test_every_service_that_talks_to_prefect_has_its_password_and_the_server_its_name() -> None:
    services = COMPOSE["services"]
    asked = services["server"]["environment"]["PREFECT_SERVER_API_AUTH_STRING"]
    assert asked.startswith("${PREFECT_API_AUTH_STRING:?")  # nothing starts without it
    for name in ("worker", "api"):
        environment = services[name]["environment"]
        assert environment["PREFECT_API_AUTH_STRING"] == asked
        host = httpx.URL(environment["PREFECT_API_URL"]).host
        default = services["server"]["environment"]["STENO_DEPLOY__ALLOWED_HOSTS"].partition(":-")[2].removesuffix("}")
        assert host in json.loads(default)
