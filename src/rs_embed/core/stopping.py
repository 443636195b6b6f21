"""Jobs that can be stopped: one event that all threads of a job hear wherever they wait, and daemon threads."""

import os
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Generic, ParamSpec, TypeVar, cast
from weakref import WeakSet, finalize

from rs_embed.errors import remember_line

P = ParamSpec("P")
T = TypeVar("T")
POLL_S = 0.2
"""How often a thread that waits for something else looks whether its job was stopped."""


class _Renewed(ABC):
    """What a forked process makes again."""

    def __init__(self) -> None:
        _RENEWED.add(self)

    @abstractmethod
    def renew(self) -> None: ...

    @staticmethod
    def renew_all() -> None:
        for one in list(_RENEWED):
            one.renew()


_RENEWED: WeakSet[_Renewed] = WeakSet()
_OF_PARENT: list[object] = []
if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_Renewed.renew_all)


class PerProcess(_Renewed, Generic[T]):
    """A thing with locks, threads or open connections, of which a forked process makes its own.

    What it would get instead may be locked by a thread that it does not have, or be a connection that two processes
    would talk over at once.

    Args:
        make: Makes it, at once and after each fork. Must be quick, must not fail, and must ask nothing of anybody.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self.here: T = make()
        """That of this process."""
        super().__init__()

    def renew(self) -> None:
        """In a process that was just forked, before anything else runs in it."""
        _OF_PARENT.append(self.here)  # never let go: to close it may need a lock, or tell the other end
        self.here = self._make()


class Stopped(BaseException):
    """The job was stopped. Ends a thread that works for it, and is never shown to the user.

    Not an `Exception`, so that nothing takes it for the failure of a row (as asyncio's CancelledError).
    """


class Stop:
    """Whether a job shall end. A job inside of another ends with it, but not the other way round."""

    def __init__(self, outer: "Stop | None" = None) -> None:
        self._event = threading.Event()
        self._inner: WeakSet[Stop] = WeakSet()
        self._joining = threading.Lock()
        if outer is not None:
            with outer._joining:
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
        with self._joining:
            inner = list(self._inner)
        for stop in inner:
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
        """What this thread does inside of the block, it does for this job.

        Not around a `yield`, as who gets it works for another; nor in the main thread, where an interrupt may come
        between any two steps, and all that follows would belong to a job that has ended.
        """
        before = _STOP.set(self)
        try:
            yield
        finally:
            _STOP.reset(before)


_STOP: ContextVar[Stop] = ContextVar("stop")
_NEVER = PerProcess(Stop)
"""Of threads that work for no job of ours."""


def current() -> Stop:
    """The job that this thread works for."""
    return _STOP.get(_NEVER.here)


def sleep(seconds: float) -> None:
    """Wait, but no longer than the job of this thread lasts."""
    current().sleep(seconds)


@dataclass(frozen=True, eq=False)
class _Task:
    future: Future[object]
    work: Callable[[], object]
    context: Context
    """Of the thread that submitted it, with its job."""

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            found = self.context.run(self._checked)
        except BaseException as error:  # noqa: BLE001  (whoever waits for it gets it)
            self.future.set_exception(error)
        else:
            self.future.set_result(found)

    def _checked(self) -> object:
        current().check()
        return self.work()


@dataclass(eq=False)
class _Queue:
    """What the threads of a pool share. They hold no pool, so that one that nobody holds can end."""

    most: int
    name: str
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Taken as such wherever the main thread may come: `with` of a `Condition`, an interrupt can leave it locked."""
    changed: threading.Condition = field(init=False)
    waiting: deque[_Task] = field(default_factory=deque)
    started: int = 0
    idle: int = 0
    closed: bool = False

    def __post_init__(self) -> None:
        self.changed = threading.Condition(self.lock)

    def put(self, task: _Task) -> None:
        with self.lock:
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
        with self.lock:
            self.idle += 1
            while not self.waiting and not self.closed:
                self.changed.wait()
            self.idle -= 1
            return self.waiting.popleft() if self.waiting else None

    def finish(self) -> None:
        """Take no more; let threads end when nothing waits any longer."""
        with self.lock:
            self.closed = True
            self.changed.notify_all()

    def drop(self) -> None:
        """Begin nothing that waits."""
        with self.lock:
            left, self.waiting = self.waiting, deque()
        for task in left:
            if task.future.set_running_or_notify_cancel():
                task.future.set_exception(Stopped())


class Threads:
    """A pool of daemon threads: what hangs in one of them is abandoned, not awaited, when the process ends.

    Work is done in the context of the thread that submits it. After a fork the child starts threads of its own. When
    nobody holds the pool any more, they do what was submitted, and end.
    """

    def __init__(self, count: int, name: str, stop: Stop | None = None) -> None:
        """Start none yet.

        Args:
            count: Threads at most.
            name: What their names begin with.
            stop: The job that they work for; `None`: always that of the thread that submits.
        """
        self._stop = stop
        self._queue = queue = PerProcess(lambda: _Queue(count, name))
        # Not at the end of the process, which daemon threads need not hear of.
        finalize(self, _finish, queue).atexit = False

    def submit(self, work: Callable[P, T], *args: P.args, **named: P.kwargs) -> Future[T]:
        """Have it done as soon as a thread is free. Its future raises `Stopped` where its job, or the pool, has ended.

        Raises:
            RuntimeError: The pool was closed.
        """
        future: Future[T] = Future()
        context = copy_context()
        context.run(remember_line)
        if self._stop is not None:
            context.run(_STOP.set, self._stop)
        self._queue.here.put(_Task(cast("Future[object]", future), lambda: work(*args, **named), context))
        return future

    def close(self) -> None:
        """Take no more work, begin nothing that waits, let idle threads end. Nobody waits for what is being done."""
        self._queue.here.finish()
        self._queue.here.drop()


def _finish(queue: PerProcess[_Queue]) -> None:
    queue.here.finish()


class Interrupts:
    """What a handler of signals has raised in the main thread, for the case that it went under there.

    Python prints what is raised inside of a weakref callback or a `__del__`, and goes on.
    """

    came: type[KeyboardInterrupt] | None = None


INTERRUPTS = Interrupts()


def outcome(future: Future[T]) -> T:
    """What comes of it, for a thread whose job may be stopped meanwhile.

    Raises:
        Stopped: The job of this thread was stopped.
        KeyboardInterrupt: This is the main thread, and a signal came that nobody heard.
        BaseException: Whatever the work has raised.
    """
    stop, in_main = current(), threading.current_thread() is threading.main_thread()
    while True:
        if in_main and INTERRUPTS.came is not None:
            raise INTERRUPTS.came
        try:
            return future.result(POLL_S)  # not for ever: a signal that comes just before the wait does not end it
        except TimeoutError:
            if future.done():  # its own error, or it came just now
                return future.result()
            stop.check()


def apart(work: Callable[[], T]) -> T:
    """What `work` returns. In the main thread it is left to another, so that a signal ends it wherever it is.

    Python hears a signal in the main thread, and not before that runs Python code again: never, while it hangs inside
    of GDAL or waits for a name server. What is abandoned there works for a job that was stopped.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    stop = Stop(current())
    threads = Threads(1, "rs-embed-apart", stop)  # held meanwhile: Python loses a signal that comes while it is let go
    try:
        return outcome(threads.submit(work))
    finally:
        stop.set()
        threads.close()
