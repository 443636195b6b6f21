"""Jobs that can be stopped: one event that all threads of a job notice wherever they wait, and daemon threads."""

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
"""How often a waiting thread checks whether its job was stopped, seconds."""


class _Renewed(ABC):
    """An object that a forked process makes again."""

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
    """Holds an object with locks, threads or open connections; a forked process makes its own.

    The parent's object might be locked by a thread that the child does not have, or be a connection on which two
    processes would interfere.

    Args:
        make: Makes the object, now and after each fork. It must be quick, must not fail, and must not wait.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self.here: T = make()
        """The object of this process."""
        super().__init__()

    def renew(self) -> None:
        """Make the object again, right after a fork, before anything else runs."""
        _OF_PARENT.append(self.here)  # never released: closing it may need a lock, or notify the other end
        self.here = self._make()


class Stopped(BaseException):
    """Raised in the threads of a job that was stopped. Users never see it.

    It is not an `Exception`, so that nothing mistakes it for the failure of a row (like asyncio's CancelledError).
    """


class Stop:
    """A stop signal for a job. Stopping a job stops the jobs inside it, but not the job around it."""

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
        """Stop the job, and those inside it."""
        self._event.set()
        with self._joining:
            inner = list(self._inner)
        for stop in inner:
            stop.set()

    def check(self) -> None:
        """Do nothing, or raise if the job was stopped.

        Raises:
            Stopped: The job was stopped.
        """
        if self.is_set:
            raise Stopped

    def sleep(self, seconds: float) -> None:
        """Sleep, but no longer than the job lasts.

        Raises:
            Stopped: The job was stopped.
        """
        if self._event.wait(seconds):
            raise Stopped

    @contextmanager
    def here(self) -> Iterator[None]:
        """Make everything that this thread does in the block belong to this job.

        Do not use it around a `yield`, because the consumer works for another job; nor in the main thread, where an
        interrupt between any two steps would leave the thread in a job that has ended.
        """
        before = _STOP.set(self)
        try:
            yield
        finally:
            _STOP.reset(before)


_STOP: ContextVar[Stop] = ContextVar("stop")
_NEVER = PerProcess(Stop)
"""For threads that work for no job."""


def current() -> Stop:
    """Return the job that this thread works for."""
    return _STOP.get(_NEVER.here)


def sleep(seconds: float) -> None:
    """Sleep, but no longer than the job of this thread lasts."""
    current().sleep(seconds)


@dataclass(frozen=True, eq=False)
class _Task:
    future: Future[object]
    work: Callable[[], object]
    context: Context
    """The context of the thread that submitted it, with its job."""

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            found = self.context.run(self._checked)
        except BaseException as error:  # noqa: BLE001  (raised again in the thread that waits for it)
            self.future.set_exception(error)
        else:
            self.future.set_result(found)

    def _checked(self) -> object:
        current().check()
        return self.work()


@dataclass(eq=False)
class _Queue:
    """The state that the threads of a pool share. It has no reference to the pool, so that the pool can be freed."""

    most: int
    name: str
    lock: threading.Lock = field(default_factory=threading.Lock)
    """The main thread takes this lock directly: an interrupt inside `with` of a `Condition` could leave it locked."""
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
                raise RuntimeError(f"the thread pool {self.name} is closed")
            self.waiting.append(task)
            if self.idle < len(self.waiting) and self.started < self.most:
                self.started += 1
                threading.Thread(target=self.serve, name=f"{self.name}-{self.started}", daemon=True).start()
            self.changed.notify()

    def serve(self) -> None:
        while (task := self._next()) is not None:
            task.run()
            del task  # free what it references before waiting for the next task

    def _next(self) -> _Task | None:
        with self.lock:
            self.idle += 1
            while not self.waiting and not self.closed:
                self.changed.wait()
            self.idle -= 1
            return self.waiting.popleft() if self.waiting else None

    def finish(self) -> None:
        """Accept no more work; let threads end when the queue is empty."""
        with self.lock:
            self.closed = True
            self.changed.notify_all()

    def drop(self) -> None:
        """Cancel everything that has not begun."""
        with self.lock:
            left, self.waiting = self.waiting, deque()
        for task in left:
            if task.future.set_running_or_notify_cancel():
                task.future.set_exception(Stopped())


class Threads:
    """A pool of daemon threads: when the process ends, a thread that hangs is abandoned, not awaited.

    Work runs in the context of the thread that submits it. After a fork, the child starts its own threads. When the
    pool is no longer referenced, the threads finish the submitted work and end.
    """

    def __init__(self, count: int, name: str, stop: Stop | None = None) -> None:
        """Make the pool; threads start when work is submitted.

        Args:
            count: The largest number of threads.
            name: Prefix of their names.
            stop: The job that they work for; `None` means the job of the thread that submits.
        """
        self._stop = stop
        self._queue = queue = PerProcess(lambda: _Queue(count, name))
        # Not at exit: daemon threads need no notice that the process ends.
        finalize(self, _finish, queue).atexit = False

    def submit(self, work: Callable[P, T], *args: P.args, **named: P.kwargs) -> Future[T]:
        """Run `work` as soon as a thread is free. The future raises `Stopped` if the job or the pool has ended.

        Raises:
            RuntimeError: The pool is closed.
        """
        future: Future[T] = Future()
        context = copy_context()
        context.run(remember_line)
        if self._stop is not None:
            context.run(_STOP.set, self._stop)
        self._queue.here.put(_Task(cast("Future[object]", future), lambda: work(*args, **named), context))
        return future

    def close(self) -> None:
        """Accept no more work, cancel what has not begun, let idle threads end. Running work is not awaited."""
        self._queue.here.finish()
        self._queue.here.drop()


def _finish(queue: PerProcess[_Queue]) -> None:
    queue.here.finish()


class Interrupts:
    """Records what a signal handler raised in the main thread, in case it got lost there.

    Python only prints an exception that is raised inside a weakref callback or a `__del__`, and goes on.
    """

    came: type[KeyboardInterrupt] | None = None


INTERRUPTS = Interrupts()


def outcome(future: Future[T]) -> T:
    """Return the result of a future, for a thread whose job may be stopped meanwhile.

    Raises:
        Stopped: The job of this thread was stopped.
        KeyboardInterrupt: This is the main thread, and a signal arrived whose exception was lost.
        BaseException: Whatever the work has raised.
    """
    stop, in_main = current(), threading.current_thread() is threading.main_thread()
    while True:
        if in_main and INTERRUPTS.came is not None:
            raise INTERRUPTS.came
        try:
            return future.result(POLL_S)  # with a timeout: a signal just before the wait does not end it
        except TimeoutError:
            if future.done():  # the work raised TimeoutError itself, or has just finished
                return future.result()
            stop.check()


def apart(work: Callable[[], T]) -> T:
    """Return what `work` returns. In the main thread, run it in another thread, so that a signal ends the wait.

    Python handles signals in the main thread, and only when it runs Python code: not while it hangs inside GDAL or
    waits for a name server. Work that is abandoned this way belongs to a job that was stopped.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    stop = Stop(current())
    threads = Threads(1, "rs-embed-apart", stop)  # kept: Python loses a signal while a pool is freed
    try:
        return outcome(threads.submit(work))
    finally:
        stop.set()
        threads.close()
