"""When containers come and go: enough for the work and the settings, no more than this machine bears."""

from __future__ import annotations

import time
from dataclasses import dataclass

from .containers import Containers
from .state import Container, Function, Pool, World

SCALEDOWN = 60
"""seconds, where the function does not say"""


@dataclass(frozen=True)
class Limits:
    """What Modal fixes or leaves open, and tests may want shorter."""

    containers: int = 8
    """at once on this machine; idle ones of other functions make room"""
    grace: float = 30.0
    """seconds from SIGINT to SIGKILL (Modal gives 30)"""
    cancel_grace: float = 5.0
    """seconds that a cancelled input may go on before its container is killed"""
    failed_starts: int = 3
    """containers in a row that fail before their first input, until the inputs waiting for them fail"""


class Scaling:
    def __init__(self, world: World, containers: Containers, limits: Limits) -> None:
        self.world, self.containers, self.limits = world, containers, limits
        self.closed = False

    def schedule(self) -> None:
        """Start the containers that are missing: for inputs that wait, to be kept warm, and as buffer while there is work."""
        if self.closed:
            return
        for function in list(self.world.functions.values()):
            if self.kept(function):
                self.world.pool(function)
        for pool in list(self.world.pools.values()):
            self._scale(pool)

    def kept(self, function: Function) -> int:
        """Containers that stay when there is no work; a variant keeps none of its own."""
        published = function.base is None and function.id in function.app.functions.values()
        return function.scaling().min_containers if published and function.app.version else 0

    def _scale(self, pool: Pool) -> None:
        now, function, scaling = time.time(), pool.function, pool.function.scaling()
        if function.app.stopped or pool.not_before > now:
            return
        live = [each for each in pool.live() if each.state != "draining"]
        work = sum(item.not_before <= now for item in pool.pending) + sum(len(each.running) for each in live)
        needed = -(-work // function.concurrency)
        wanted = max(needed + scaling.buffer_containers * bool(work), self.kept(function))
        for number in range(len(live), min(wanted, scaling.max_containers or wanted)):
            if not self._make_room(pool, needed=number < needed):
                return
            container = self.containers.start(function)
            pool.containers[container.id] = container

    def _make_room(self, pool: Pool, needed: bool) -> bool:
        """Whether one more container fits on this machine; for work that waits, an idle one of another function leaves."""
        alive = [each for each in self.world.containers.values() if each.alive]
        if len(alive) < self.limits.containers:
            return True
        idle = [each for each in alive if each.state == "ready" and not each.running and each.function is not pool.function]
        leaving = any(each.state == "draining" and not each.running for each in alive)
        if idle and needed and not leaving:
            self.drain(min(idle, key=lambda each: each.idle_since), "idle")
        return False

    def drain(self, container: Container, reason: str) -> None:
        """Let it finish what it runs and leave by itself."""
        if container.alive and container.state != "draining":
            container.state, container.reason = "draining", reason
            self.world.pool(container.function).signal.fire()

    def let_go(self, container: Container, now: float) -> None:
        """Drain it when it has been idle for its window, unless it is one of those that stay."""
        function = container.function
        window = function.scaling().scaledown_window or SCALEDOWN
        idle = container.state == "ready" and not container.running and now > container.idle_since + window
        staying = sum(each.state != "draining" for each in self.world.pool(function).live())
        if idle and staying > self.kept(function):
            self.drain(container, "idle")
