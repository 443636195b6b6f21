"""Jobs that can be stopped: one event that all threads of a job hear wherever they wait, and daemon threads."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar, cast
from weakref import WeakSet, finalize

P = ParamSpec("P")
T = TypeVar("T")
POLL_S = 0.2
"""How often a thread that waits for something else looks whether its job was stopped."""


class Stopped(BaseException):
    """The job was stopped. Ends a thread that works for it, and is never shown to the user.

    Not an `Exception`, so that nothing takes it for the failure of a row (as asyncio's CancelledError).
    """


class Stop:
    """Whether a job shall end. A job inside of another ends with it, but not the other way round."""

    def __init__(self, outer: "Stop | None" = None) -> None:
        self._event = threading.Event()
        self._inner: WeakSet[Stop] = WeakSet()
        if outer is not None:
            outer._inner.add(self)
            if outer.is_set:
                self._event.set()

    @property
    def is_set(self) -> bool:
        """Whether it was stopped."""
        return self._event.is_set()

    def set(self) -> None:
        """Stop the job, and those inside of it."""
        self._event.set()
        for stop in list(self._inner):
            stop.set()

    def check(self) -> None:
        """Go on, or end this thread's work.

        Raises:
            Stopped: The job was stopped.
        """
        if self.is_set:
            raise Stopped

    def sleep(self, seconds: float) -> None:
        """Wait, but no longer than the job lasts.

        Raises:
            Stopped: The job was stopped.
        """
        if self._event.wait(seconds):
            raise Stopped

    @contextmanager
    def here(self) -> Iterator[None]:
        """What this thread does inside of the block, it does for this job."""
        before = current()
        _LOCAL.stop = self
        try:
            yield
        finally:
            _LOCAL.stop = before


class _Local(threading.local):
    stop = Stop()
    """Of threads that work for no job of ours: never set."""


_LOCAL = _Local()


def current() -> Stop:
    """The job that this thread works for."""
    return _LOCAL.stop


def sleep(seconds: float) -> None:
    """Wait, but no longer than the job of this thread lasts."""
    current().sleep(seconds)


@dataclass(frozen=True, eq=False)
class _Task:
    future: Future[object]
    work: Callable[[], object]
    stop: Stop

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            with self.stop.here():
                self.stop.check()
                found = self.work()
        except BaseException as error:  # noqa: BLE001  (whoever waits for it gets it)
            self.future.set_exception(error)
        else:
            self.future.set_result(found)


@dataclass(eq=False)
class _Queue:
    """What the threads of a pool share. They hold no pool, so that one that nobody holds can end."""

    most: int
    name: str
    changed: threading.Condition = field(default_factory=threading.Condition)
    waiting: deque[_Task] = field(default_factory=deque)
    started: int = 0
    idle: int = 0
    closed: bool = False

    def put(self, task: _Task) -> None:
        with self.changed:
            if self.closed:
                raise RuntimeError(f"the threads {self.name} were closed")
            self.waiting.append(task)
            if self.idle < len(self.waiting) and self.started < self.most:
                self.started += 1
                threading.Thread(target=self.serve, name=f"{self.name}-{self.started}", daemon=True).start()
            self.changed.notify()

    def serve(self) -> None:
        while (task := self._next()) is not None:
            task.run()
            del task  # what it held must not live until the next one comes

    def _next(self) -> _Task | None:
        with self.changed:
            self.idle += 1
            while not self.waiting and not self.closed:
                self.changed.wait()
            self.idle -= 1
            return self.waiting.popleft() if self.waiting else None

    def close(self) -> None:
        with self.changed:
            self.closed = True
            for task in self.waiting:
                task.future.cancel()
            self.waiting.clear()
            self.changed.notify_all()


class Threads:
    """A pool of daemon threads: what hangs in one of them is abandoned, not awaited, when the process ends.

    Work is done for the job of the thread that submits it. After a fork the child starts threads of its own. They end
    when nobody holds the pool any more.
    """

    def __init__(self, count: int, name: str) -> None:
        """Start none yet.

        Args:
            count: Threads at most.
            name: What their names begin with.
        """
        self._count, self._name = count, name
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._queue = _Queue(self._count, self._name)
        self._closer = finalize(self, self._queue.close)
        self._closer.atexit = False  # at the end of the process daemon threads need no word

    def submit(self, work: Callable[P, T], *args: P.args, **named: P.kwargs) -> Future[T]:
        """Have it done as soon as a thread is free.

        Raises:
            RuntimeError: The pool was closed.
        """
        if self._pid != os.getpid():  # threads do not survive a fork, and their lock may have been held
            self._closer.detach()
            self._begin()
        future: Future[T] = Future()
        self._queue.put(_Task(cast("Future[object]", future), lambda: work(*args, **named), current()))
        return future

    def close(self) -> None:
        """Take no more work, cancel what waits, let idle threads end. Nobody waits for what is being done."""
        self._queue.close()
