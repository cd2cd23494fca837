"""A server that speaks Modal's protocol, for tests: the real client, the real container entrypoint, no network.

It answers the gRPC calls that the installed `modal` makes, keeps blobs and volumes on disk, and runs functions with
`python -m modal._container_entrypoint` in subprocesses, each in a mount namespace with the app's files, volumes and secrets
where Modal has them. Images are recorded, not built: containers have this machine's site-packages.

    from tests.modal_server.fixture import modal_server          # a pytest fixture, one server per module

    def test_it(modal_server):
        modal_server.secret("huggingface", HF_TOKEN="hf_…")
        modal_server.deploy("infra.modal_app")
        modal_server.fault("kill", "Speech.asr", after=0.5)       # SIGKILL half a second into the next call
        ...
        [call] = modal_server.calls_of("asr")                     # call["attempts"] → killed, succeeded

Another process joins with `server.environ()`, or starts one with `python -m tests.modal_server`, which prints the environment
to set and where the control endpoint is; `ModalServer.attach` takes that line. Faults, each for a function (`asr`,
`Speech.asr`, a pattern; default all) and a `count` (default 1), and what the client then raises:

| fault | what happens | what the client sees |
|---|---|---|
| `kill` `after=` | SIGKILL to the container during the input | nothing: Modal runs the input again, for ever if need be |
| `preempt` `after=` | SIGINT, `--grace` seconds, then SIGKILL | nothing: run again; the function sees KeyboardInterrupt |
| `oom` `after=` | killed as by the kernel, and a log line | nothing: run again; with `final=True` RemoteError |
| `boot` | SIGKILL to a container that asks for its next input | nothing: another container takes it |
| `timeout` `after=` | as if the function's own limit had passed | FunctionTimeoutError; the container goes |
| `fail` | the input ends before it began | InternalFailure (retried at once if the function has retries) |
| `delay` `seconds=` | the input waits that long before it is handed out | nothing, or TimeoutError (builtin) from `get(timeout=)` |
| `expire` | the result is gone when it comes | OutputExpiredError, once `get(timeout=)` has passed; without one, never |
| `disconnect` `after=` `seconds=` | clients' connections reset, refused for so long | ConnectionError after 0.7 s; the call goes on |
| `lose` `rpc=` `seconds=` | done, but the reply is lost with the connection | ConnectionError; a retry within 0.7 s gets the same reply |
| `refuse` `status=` `rpc=` | the request is refused with that gRPC status | see below |

`refuse`: RESOURCE_EXHAUSTED → ResourceExhaustedError (with `retry_after=` the client waits and tries again instead),
PERMISSION_DENIED → PermissionDeniedError, UNAUTHENTICATED → AuthError, NOT_FOUND → NotFoundError, INVALID_ARGUMENT →
InvalidError, FAILED_PRECONDITION → ConflictError, ALREADY_EXISTS → AlreadyExistsError, UNIMPLEMENTED → UnimplementedError,
DATA_LOSS → DataLossError; INTERNAL → InternalError, UNAVAILABLE, UNKNOWN and DEADLINE_EXCEEDED → ServiceError: these after
three retries in 0.7 s, each of which counts. All are of `modal.exception`. The last of an unavailable server's retries may
also surface as grpclib's StreamTerminatedError, when the connection breaks while the reply is awaited.

Other failures: the function's own exception comes back as it is; a container that cannot start fails the input after three
tries with what its start raised (RemoteError where it raised nothing); a cancelled call is RemoteError; an unknown app,
function, secret or call is NotFoundError; a wrong token AuthError, and so is none, before anything is sent.

Not there: building images, GPUs, sandboxes, input-plane functions, network file systems, cloud bucket mounts (accepted,
not mounted), proxies, clusters, memory snapshots (functions start plain), schedules (recorded, never fire), rollback,
background commits while a container runs (it commits when asked and when it ends), memory and CPU limits.
"""

from .client import ModalServer as ModalServer
