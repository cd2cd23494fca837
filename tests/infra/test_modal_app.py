"""The app as the Modal client really sends it: GPUs, volumes, secrets, image, limits, scaling."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import modal
import pytest

from infra.on_modal.contract import RemoteError, code_fingerprint
from infra.on_modal.errors import modal_errors, rebuilt
from infra.on_modal.gpus import larger_gpu, larger_steps, modal_name
from infra.on_modal.image import CUDA_CHECK
from infra.settings import ModalSettings
from stenoflow.errors import (
    GatedModel,
    ModalDenied,
    ModalNotDeployed,
    OutOfMemory,
    StageFailed,
    StageTimeout,
    TransientError,
    WorkerLost,
)
from tests.modal_server import ModalServer
from tests.modal_server.fixture import forget_client, use

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "STENO_MODEL": "large-v3",
    "STENO_MODAL__APP": "defined",
    "STENO_MODAL__GPU": '["H100", "A100-80GB"]',
    "STENO_MODAL__VOICES_GPU": '["T4"]',
    "STENO_MODAL__CPU": "2.5",
    "STENO_MODAL__MEMORY": "32768",
    "STENO_MODAL__INPUTS": "2",
    "STENO_MODAL__MIN_CONTAINERS": "1",
    "STENO_MODAL__BUFFER_CONTAINERS": "2",
    "STENO_MODAL__MAX_CONTAINERS": "20",
    "STENO_MODAL__SCALEDOWN_WINDOW": "300",
    "STENO_MODAL__TIMEOUT": "7200",
    "STENO_MODAL__STARTUP_TIMEOUT": "600",
    "STENO_MODAL__REGION": '["eu"]',
    "STENO_MODAL__SNAPSHOT": "true",
    "STENO_MODAL__HF_SECRET": "huggingface",
    "STENO_MODAL__S3_SECRET": "bucket",
}


@pytest.fixture(scope="module")
def server() -> Iterator[ModalServer]:
    with ModalServer.start() as server:
        server.secret("huggingface", HF_TOKEN="hf_secret_value")
        server.secret("bucket", STENO_S3__KEY="key", STENO_S3__SECRET="bucket_secret_value")
        yield server


@pytest.fixture(scope="module")
def defined(server: ModalServer) -> dict[str, Any]:
    server.deploy("infra.modal_app", **SETTINGS)
    return server.app("defined")


@pytest.mark.slow
def test_classes_have_the_gpus_and_limits_of_the_settings(defined: dict[str, Any]) -> None:
    functions = defined["functions"]
    assert set(functions) == {"Recordings.*", "Speech.*", "Voices.*", "smoke", "warm", "tidy"}
    stages = {"Speech.*": ["align", "asr"], "Voices.*": ["diarize", "embed", "segment"]}
    stages["Recordings.*"] = sorted(stages["Speech.*"] + stages["Voices.*"])
    assert {name: functions[name]["methods"] for name in stages} == {
        name: sorted([*own, "ready"]) for name, own in stages.items()
    }
    assert functions["Speech.*"]["gpu"] == functions["Recordings.*"]["gpu"] == ["H100", "A100-80GB"]
    assert functions["Voices.*"]["gpu"] == ["T4"]
    assert (functions["smoke"]["gpu"], functions["warm"]["gpu"]) == (["H100", "A100-80GB"], [])
    expected = {
        "cpu": 2.5,
        "memory": 32768,
        "timeout": 7200,
        "startup_timeout": 600,
        "min_containers": 1,
        "buffer_containers": 2,
        "max_containers": 20,
        "scaledown_window": 300,
        "max_inputs": 2,
        "regions": ["eu"],
        "memory_snapshot": True,
        "retries": 0,
    }
    for name in ("Speech.*", "Voices.*"):
        assert {field: functions[name][field] for field in expected} == expected
    assert functions["tidy"]["schedule"] == {"period": {"days": 1}}


@pytest.mark.slow
def test_what_is_kept_warm_is_the_class_for_short_recordings(server: ModalServer) -> None:
    """Where there is one: `defined` has another GPU for voices, and so always two."""
    server.deploy("infra.modal_app", STENO_MODAL__APP="warm", STENO_MODAL__MIN_CONTAINERS="1")
    functions = server.app("warm")["functions"]
    server.modal("app", "stop", "-y", "warm")
    kept = {name: function["min_containers"] for name, function in functions.items() if name.endswith(".*")}
    assert kept == {"Recordings.*": 1, "Speech.*": 0, "Voices.*": 0}


@pytest.mark.slow
def test_volumes_and_secrets_are_named_never_sent(defined: dict[str, Any]) -> None:
    for name in ("Speech.*", "Voices.*", "smoke", "warm"):
        function = defined["functions"][name]
        assert {path: each["name"] for path, each in function["volumes"].items()} == {
            "/weights": "defined-weights",
            "/artifacts": "defined-artifacts",
        }
        assert [secret["name"] for secret in function["secrets"]] == ["huggingface", "bucket"]
    assert "secret_value" not in str(defined)


@pytest.mark.slow
def test_the_image_is_the_repositorys_own_lock_file(defined: dict[str, Any]) -> None:
    function = defined["functions"]["Speech.*"]
    image = function["image"]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert image["commands"][0].startswith(f"FROM python:{version}.")
    for name, more in (("gpu", ""), ("weights", "--no-deps ")):
        [sent] = [text for path, text in image["context_files"].items() if path.endswith(f"_{name}.txt")]
        assert sent == (ROOT / "requirements" / f"{name}.txt").read_text()
        assert any(f"--require-hashes {more}--requirements" in line and f"{name}.txt" in line for line in image["commands"])
    [uv] = re.findall(r"^uv==(\S+)", (ROOT / "requirements/uv.txt").read_text(), re.MULTILINE)
    assert any(f"uv:{uv} " in line for line in image["commands"])
    # The build fails when what is loaded is not what is pinned.
    assert [line for line in image["commands"] if CUDA_CHECK in line] == [f"RUN python {CUDA_CHECK}"]
    assert image["copied_files"] == [CUDA_CHECK]
    assert not any("nvidia/cuda" in line for line in image["commands"])
    assert (image["env"]["STENO_MODEL"], image["env"]["STENO_MODELS_DIR"]) == ("large-v3", "/weights/models")
    assert "LD_LIBRARY_PATH" not in image["env"]
    packages = {path.split("/")[2] for path in function["files"]}
    assert packages == {"infra", "speech", "stenoflow"}


@pytest.mark.slow
def test_nothing_is_asked_of_modal_that_is_not_set(server: ModalServer) -> None:
    server.deploy("infra.modal_app", STENO_MODAL__APP="plain", STENO_MODAL__GPU="[]")
    for name in ("Speech.*", "Voices.*"):
        function = server.app("plain")["functions"][name]
        unset = ("gpu", "secrets", "regions", "min_containers", "max_containers", "buffer_containers", "memory_snapshot")
        assert not any(function[field] for field in unset)


@pytest.mark.slow
def test_deploying_warns_of_nothing(server: ModalServer) -> None:
    """No deprecated part of Modal's interface is used."""
    said = server.deploy("infra.modal_app", STENO_MODAL__APP="warned", PYTHONWARNINGS="error::DeprecationWarning")
    assert "deprecat" not in said.lower()


@pytest.mark.slow
def test_the_rest_api_is_served_where_a_secret_says_whose_runs_its_jobs_are(server: ModalServer) -> None:
    server.secret("prefect", PREFECT_API_URL="http://127.0.0.1:9/api", PREFECT_API_KEY="prefect_secret_value")
    settings = {"STENO_MODAL__APP": "serving", "STENO_MODAL__API_SECRET": "prefect", "STENO_STORE": "s3://bucket/steno"}
    server.deploy("infra.modal_app", **settings)
    api = server.app("serving")["functions"]["api"]
    assert (api["gpu"], api["max_inputs"], api["volumes"]) == ([], 100, {})
    assert [secret["name"] for secret in api["secrets"]] == ["prefect"]
    assert {path.split("/")[2] for path in api["files"]} == {"speech", "infra", "tasks", "flows", "api", "stenoflow"}
    [sent] = [text for path, text in api["image"]["context_files"].items() if path.endswith("_base.txt")]
    assert sent == (ROOT / "requirements" / "base.txt").read_text()
    assert "prefect_secret_value" not in str(server.app("serving"))

    with pytest.MonkeyPatch.context() as patch:
        use(server, patch)
        url = modal.Function.from_name("serving", "api").get_web_url()
    forget_client()
    with httpx.Client(base_url=str(url), trust_env=False, timeout=120) as http:
        assert http.get("/health").json()["status"] == "healthy"
        refused = http.get("/transcribes")  # on the internet nobody is let in without a key
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")


@pytest.mark.slow
def test_the_rest_api_is_not_served_from_a_folder_of_this_machine(server: ModalServer) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stenoflow.cli.main", "modal", "deploy", "--quiet"],
        env=server.environ(STENO_MODAL__APP="unshared", STENO_MODAL__API_SECRET="prefect"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 4 and "STENO_STORE" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_secret_that_is_not_there_is_named(server: ModalServer) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stenoflow.cli.main", "modal", "deploy", "--quiet"],
        env=server.environ(STENO_MODAL__APP="lacking", STENO_MODAL__HF_SECRET="nowhere"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 4
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr


# -- names, errors, libraries: without a server --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("Tesla T4", "T4"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA A10G", "A10"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA A100 80GB PCIe", "A100-80GB"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 4090"),
    ],
)
def test_gpus_are_called_what_modal_calls_them(said: str, name: str) -> None:
    assert modal_name(said) == name


def test_larger_gpus_begin_above_what_is_deployed() -> None:
    assert larger_steps("asr", ModalSettings()) == ("L40S", "A100-80GB", "H200")
    settings = ModalSettings(gpu=("L40S",), voices_gpu=())
    assert [larger_gpu("asr", step, settings) for step in range(4)] == [None, "A100-80GB", "H200", "H200"]
    assert larger_gpu("embed", 1, settings) is None


@pytest.mark.parametrize("kind", [GatedModel, OutOfMemory, TransientError, WorkerLost, ModalNotDeployed])
def test_errors_of_containers_are_the_same_here(kind: Any) -> None:
    found = rebuilt(RemoteError(code=kind.code, message="what happened"))
    assert (type(found), found.message) == (kind, "what happened")
    assert isinstance(rebuilt(RemoteError(code="unheard of", message="x")), StageFailed)


@pytest.mark.parametrize(
    ("name", "kind", "command"),
    [
        ("AuthError", ModalDenied, "modal token new"),
        ("PermissionDeniedError", ModalDenied, "modal token new"),
        ("NotFoundError", ModalNotDeployed, "steno modal deploy"),
        ("InvalidError", ModalNotDeployed, "steno modal deploy"),
        ("VersionError", ModalNotDeployed, "steno modal deploy"),
        ("FunctionTimeoutError", StageTimeout, "STENO_MODAL__TIMEOUT"),
        ("RemoteError", WorkerLost, ""),
        ("InternalFailure", TransientError, ""),
        ("InternalError", TransientError, ""),
        ("ServiceError", TransientError, ""),
        ("ConnectionError", TransientError, ""),
        ("ResourceExhaustedError", TransientError, ""),
        ("ConflictError", TransientError, ""),
        ("DataLossError", TransientError, ""),
        ("ExecutionError", StageFailed, ""),
        ("DeserializationError", StageFailed, ""),
    ],
)
def test_modals_errors_say_what_to_do(name: str, kind: type[Exception], command: str) -> None:
    from modal import exception

    with pytest.raises(kind) as caught, modal_errors("the asr stage"):
        raise getattr(exception, name)("said by Modal")
    assert caught.type is kind
    assert command in str(caught.value)


def test_a_container_out_of_memory_is_out_of_memory() -> None:
    from modal.exception import RemoteError as ModalsRemoteError

    with pytest.raises(OutOfMemory), modal_errors("the asr stage"):
        raise ModalsRemoteError("Container ran out of memory and was killed")


def test_the_fingerprint_is_of_the_engine() -> None:
    assert re.fullmatch(r"[0-9a-f]{16}", code_fingerprint())
