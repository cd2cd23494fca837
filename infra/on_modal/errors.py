"""Modal's errors as ours, and our own carried over the wire by their codes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import stenoflow.errors
from infra.on_modal.contract import RemoteError
from stenoflow.errors import (
    ModalDenied,
    ModalNotDeployed,
    OutOfMemory,
    StageFailed,
    StageTimeout,
    StenoError,
    TransientError,
    WorkerLost,
)

_OUT_OF_MEMORY = ("out of memory", "oom", "memory limit")


def rebuilt(error: RemoteError) -> StenoError:
    """The error that a container met."""
    kinds = [kind for kind in vars(stenoflow.errors).values() if isinstance(kind, type) and issubclass(kind, StenoError)]
    known = {kind.code: kind for kind in kinds}
    found = known.get(error.code, StageFailed)(error.message, cure=error.cure)
    if isinstance(found, OutOfMemory):
        found.tried = error.tried
    return found


@contextlib.contextmanager
def modal_errors(doing: str) -> Iterator[None]:
    """Have what the Modal client raises say what to do, in our own classes."""
    from grpclib.exceptions import StreamTerminatedError
    from modal import exception as modal

    try:
        yield
    except modal.AuthError:
        raise ModalDenied("Modal rejects this machine's token", cure="run `modal token new`") from None
    except modal.PermissionDeniedError:
        raise ModalDenied(
            f"This machine's Modal token lacks the permissions for {doing}",
            cure="run `modal token new`, or ask the workspace's owner",
        ) from None
    except modal.VersionError:
        raise ModalNotDeployed(
            "Modal no longer supports this version of its client", cure="upgrade `modal`, then `steno modal deploy`"
        ) from None
    except modal.NotFoundError as error:
        raise ModalNotDeployed(
            f"What {doing} needs is not on Modal ({_first_line(error)})", cure="run `steno modal deploy`"
        ) from None
    except modal.FunctionTimeoutError:
        raise StageTimeout(
            f"Modal stopped {doing} at the time limit of the function",
            cure="raise STENO_MODAL__TIMEOUT, then `steno modal deploy`",
        ) from None
    except modal.RemoteError as error:
        if any(mark in str(error).lower() for mark in _OUT_OF_MEMORY):
            raise OutOfMemory(
                f"A container ran out of memory during {doing}", cure="raise STENO_MODAL__MEMORY, or use a smaller model"
            ) from None
        raise WorkerLost(
            f"Modal ended {doing} without a result: the call was stopped, or its container did not start."
        ) from None
    except (modal.InternalFailure, modal.InternalError, modal.ServiceError, modal.ConnectionError) as error:
        raise TransientError(f"Modal could not be reached, or failed, during {doing} ({type(error).__name__}).") from None
    except (modal.ResourceExhaustedError, modal.ConflictError, modal.DataLossError) as error:
        raise TransientError(f"Modal rejected {doing} temporarily ({type(error).__name__}).") from None
    except (StreamTerminatedError, ConnectionError) as error:  # grpclib's and asyncio's own, which the client lets through
        raise TransientError(f"The connection to Modal broke during {doing} ({type(error).__name__}).") from None
    except modal.InvalidError as error:
        raise ModalNotDeployed(
            f"The deployed app does not match this version ({_first_line(error)})", cure="run `steno modal deploy`"
        ) from None
    except modal.Error as error:
        raise StageFailed(f"Modal failed {doing} with an unexpected {type(error).__name__}; please report it.") from None


def _first_line(error: Exception) -> str:
    """Modal's own words, which name objects and never quote what was sent."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:200]
