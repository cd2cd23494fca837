"""What an operation of the client consists of. The core yields steps and gets what came of them; the two clients take them.

So everything that is decided (what to send, when again, what an answer means) is written once, for threads and for event
loops alike, and can be read and tested without either.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeVar

from stenoflow.client.uploads import Upload

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """A request, as it can be made any number of times."""

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    upload: Upload | None = None
    timeout: float = 60.0
    """Seconds without a byte of the answer."""
    repeatable: bool = True
    """Whether it may be made again although the service may have acted on it already."""


class Stream(Protocol):
    """An answer that is read line by line."""

    @property
    def status_code(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...


@dataclass(frozen=True)
class Send:
    """Make the request; the answer, read to its end. Raises httpx.TransportError."""

    call: Call


@dataclass(frozen=True)
class Open:
    """Make the request; the answer, of which only the head has been read. Raises httpx.TransportError."""

    call: Call


@dataclass(frozen=True)
class NextLine:
    """The next line of an open stream; None at its end. Raises httpx.TransportError."""

    stream: Stream


@dataclass(frozen=True)
class Close:
    """Read no further."""

    stream: Stream


@dataclass(frozen=True)
class Sleep:
    """Wait."""

    seconds: float


@dataclass(frozen=True)
class Work:
    """Have a function called that may block; its result."""

    function: Callable[[], Any]


@dataclass(frozen=True)
class Notify:
    """Call what the user gave; awaited where it gives something to await."""

    listener: Callable[[Any], Any]
    argument: Any


@dataclass(frozen=True)
class Emit:
    """Hand a value to who iterates."""

    value: Any


Step: TypeAlias = Send | Open | NextLine | Close | Sleep | Work | Notify | Emit
Steps: TypeAlias = Generator[Step, Any, T]
