"""The process seam: every program we start goes through here, in a process group of its own, with a time limit."""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from driverctr import pidfd
from driverctr.deferred import Deferred, selectors, shlex
from driverctr.errors import Code, DriverError
from driverctr.log import Log
from driverctr.paths import DEFAULT_PATH
from driverctr.records import field, frozen

if TYPE_CHECKING:
    import subprocess
else:
    subprocess = Deferred("subprocess")

PR_SET_CHILD_SUBREAPER = 36
"""linux/prctl.h"""

DEFAULT_LIMIT = 60.0
"""Seconds a small tool may take before it is ended."""

KILL_LIMIT = 2.0
"""Seconds a program has after SIGKILL: what lives on then sleeps in the kernel, where no signal reaches it."""

Wait = Callable[[int, float], bool]
"""Waits that many seconds for a descriptor to be readable; False where it gave up."""

Attended = TypeVar("Attended")


@frozen
class Result:
    """What a program left: exit status (negative: ended by that signal) and its words."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def words(self) -> str:
        """What the program said, stderr first, shortened to its last lines."""
        lines = (self.stderr.strip() or self.stdout.strip()).splitlines()
        return "; ".join(line.strip() for line in lines[-5:]) or f"exit status {self.status}"


@frozen
class Runner:
    """Starts programs in a given environment; the only importer of subprocess.

    `held()` keeps a signal off a child that is being born, and that nobody would end yet (signals.Signals).
    """

    environment: Mapping[str, str] = field(default_factory=lambda: {"PATH": DEFAULT_PATH})
    log: Log = field(default_factory=Log)
    held: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext

    def child_environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """What a child sees: ours, English words for messages we read, and what the call adds."""
        return {**self.environment, "LC_ALL": "C.UTF-8", **(extra or {})}

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        limit: float = DEFAULT_LIMIT,
        check: bool = True,
        extra_env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Result:
        """Run a program to its end, within `limit` seconds.

        Raises DriverError (command-failed) where it is missing, takes too long, or, with `check`, exits non-zero.
        """
        words = tuple(os.fspath(word) for word in argv)
        self.log.debug("+ " + shlex.join(words))
        started = time.monotonic()

        def attend(child: "subprocess.Popen[bytes]") -> tuple[bytes, bytes]:
            try:
                return child.communicate(timeout=limit)
            except subprocess.TimeoutExpired:
                raise _late(words, limit) from None

        birth = partial(self._popen, words, extra_env, cwd, subprocess.PIPE, subprocess.PIPE)
        child, (stdout, stderr) = self._with_child(birth, attend)
        result = Result(
            words,
            child.returncode,
            stdout.decode(errors="replace"),
            stderr.decode(errors="replace"),
            time.monotonic() - started,
        )
        if check and result.status != 0:
            raise DriverError(Code.COMMAND_FAILED, f"`{shlex.join(words)}` failed: {result.words}")
        return result

    def stream(
        self,
        argv: Sequence[str | Path],
        on_line: Callable[[str], None],
        *,
        limit: float,
        extra_env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        wait: Wait | None = None,
    ) -> int:
        """Run a program, hand over each line of its output (both streams) as it comes, return the exit status.

        `wait(descriptor, seconds)` may give up earlier than `limit`.
        Raises DriverError (command-failed) where it is missing or takes longer than `limit` seconds.
        """
        words = tuple(os.fspath(word) for word in argv)
        self.log.debug("+ " + shlex.join(words))
        started = time.monotonic()
        deadline = started + limit

        def attend(child: "subprocess.Popen[bytes]") -> int:
            assert child.stdout is not None
            for line in _lines(child.stdout.fileno(), deadline, wait):
                on_line(line)
            if not wait_for_end(child.pid, max(0.0, deadline - time.monotonic()), wait):
                raise _late(words, time.monotonic() - started)
            return child.wait()

        birth = partial(self._popen, words, extra_env, cwd, subprocess.PIPE, subprocess.STDOUT)
        return self._with_child(birth, attend)[1]

    def _with_child(
        self, birth: "Callable[[], subprocess.Popen[bytes]]", attend: "Callable[[subprocess.Popen[bytes]], Attended]"
    ) -> "tuple[subprocess.Popen[bytes], Attended]":
        """A child in its own session, and what `attend` returns; whatever ends that early ends the child's whole group.

        A child that not even SIGKILL ends is left: a DriverError that ended `attend` says so.
        """
        child = None
        try:
            with self.held():
                child = birth()
            return child, attend(child)
        except BaseException as error:
            if child is not None:
                _end_early(child, error)
            raise
        finally:
            for pipe in (child.stdout, child.stderr) if child is not None else ():
                if pipe is not None:
                    pipe.close()

    def _popen(
        self,
        words: tuple[str, ...],
        extra_env: Mapping[str, str] | None,
        cwd: Path | None,
        stdout: int,
        stderr: int,
    ) -> "subprocess.Popen[bytes]":
        """A child in a session of its own; raises DriverError (command-failed)."""
        try:
            return subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=self.child_environment(extra_env),
                cwd=cwd,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise DriverError(
                Code.COMMAND_FAILED,
                f"`{words[0]}` was not found on PATH={self.environment.get('PATH', '')}",
                "The image is incomplete: build it from the project's Dockerfile",
            ) from error
        except OSError as error:
            raise DriverError(Code.COMMAND_FAILED, f"`{words[0]}` could not be started: {error.strerror}") from error

    def start(self, argv: Sequence[str | Path], *, extra_env: Mapping[str, str] | None = None) -> "Background":
        """Start a program that runs beside us; raises DriverError (command-failed)."""
        words = tuple(os.fspath(word) for word in argv)
        self.log.debug("+ " + shlex.join(words))
        return Background(self._popen(words, extra_env, None, subprocess.PIPE, subprocess.STDOUT))


def _end_early(child: "subprocess.Popen[bytes]", error: BaseException) -> None:
    """End a child's group; raises a DriverError that says so where `error` is one and the child lives on."""
    end_group(child.pid)  # the leader may have ended and left others of its group behind
    try:
        child.wait(KILL_LIMIT)
    except subprocess.TimeoutExpired:
        if isinstance(error, DriverError):
            raise _unending(error, child.pid) from None


def _late(words: Sequence[str], seconds: float) -> DriverError:
    return DriverError(Code.COMMAND_FAILED, f"`{shlex.join(words)}` did not end within {seconds:.0f} s and was stopped")


def _unending(error: DriverError, pid: int) -> DriverError:
    """The same error, of a child that lives on."""
    hangs = f"; not even SIGKILL ends it: pid {pid} hangs in the kernel and is left"
    return DriverError(
        error.code, error.message.removesuffix(" and was stopped") + hangs, error.remedy or "See the kernel log"
    )


def _lines(descriptor: int, deadline: float, wait: Wait | None) -> Iterator[str]:
    """The lines a pipe brings, until it closes, the deadline (monotonic seconds) has come, or `wait` gives up."""
    pending = b""
    while (left := deadline - time.monotonic()) > 0 and (wait or _wait_readable)(descriptor, left):
        chunk = os.read(descriptor, 65536)
        if not chunk:
            break
        *whole, pending = (pending + chunk).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")
    if pending:
        yield pending.decode(errors="replace")


def _wait_readable(descriptor: int, seconds: float) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        return bool(selector.select(seconds))


def end_group(leader: int, grace: float = 0.5) -> None:
    """End a process group: SIGTERM, then after `grace` seconds SIGKILL; nothing of it survives."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGTERM)
        with contextlib.suppress(OSError), contextlib.closing(_PidFd(leader)) as watched:
            watched.wait(grace)
        os.killpg(leader, signal.SIGKILL)


class Background:
    """A program beside us, in a session of its own; both its output streams come through one pipe."""

    LINE_LIMIT = 8192
    """Bytes; what is longer comes in pieces."""

    def __init__(self, child: "subprocess.Popen[bytes]") -> None:
        """Take over a child that was just started."""
        import psutil  # now: at the end there is no time for it

        assert child.stdout is not None
        self._child, self._output, self._rest = child, child.stdout, b""
        self._process = psutil.Process(child.pid)
        self.at_end = False
        os.set_blocking(self._output.fileno(), False)

    @property
    def pid(self) -> int:
        """Ours to reap: until `end` has returned, no other process gets this number."""
        return self._child.pid

    def fileno(self) -> int:
        """Its output, for a selector."""
        return self._output.fileno()

    def read(self) -> list[str]:
        """The lines that have arrived, without waiting; `at_end` is true when none will follow."""
        try:
            chunk = os.read(self._output.fileno(), 65536)
        except BlockingIOError:
            return []
        self.at_end = not chunk
        *whole, rest = (self._rest + chunk).split(b"\n")
        if rest and (self.at_end or len(rest) > self.LINE_LIMIT):
            whole, rest = [*whole, rest], b""
        self._rest = rest
        return [line.decode(errors="replace") for line in whole]

    def end(self, grace: float) -> int:
        """Wait `grace` seconds for its end, then end it by force with all that it has started; its exit status.

        What it started lies in sessions of their own and would outlive it. One that hangs in the kernel is left.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(grace)
        if self._child.returncode is None:
            for group in self.groups():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(KILL_LIMIT)
        self._output.close()
        return -signal.SIGKILL if self._child.returncode is None else self._child.returncode

    def groups(self) -> set[int]:
        """The process groups of it and of all that descend from it."""
        found: set[int] = set()
        for member in (self._process, *self._process.children(recursive=True)):
            with contextlib.suppress(ProcessLookupError):
                found.add(os.getpgid(member.pid))
        return found

    def ask_to_end(self) -> None:
        """Send SIGTERM."""
        self._child.send_signal(signal.SIGTERM)


class _PidFd:
    """Readable when the process has ended, whoever its parent is."""

    def __init__(self, pid: int) -> None:
        self.descriptor = pidfd.opened(pid)

    def wait(self, seconds: float) -> bool:
        """Wait for the end; False when it did not come in time."""
        return _wait_readable(self.descriptor, seconds)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.descriptor)


def wait_for_end(pid: int, seconds: float, wait: Wait | None = None) -> bool:
    """Wait until a process that need not be our child has ended; False when `seconds` have passed.

    `wait(descriptor, seconds)` may give up earlier than that.
    """
    try:
        with contextlib.closing(_PidFd(pid)) as watched:
            return wait(watched.descriptor, seconds) if wait is not None else watched.wait(seconds)
    except ProcessLookupError:
        return True


def become_subreaper() -> None:
    """Make daemons that fork twice our children, so that their end is ours to see (prctl(2))."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap(known: set[int]) -> list[int]:
    """Collect ended children that nobody waits for; `known` pids are left to those who started them."""
    reaped: list[int] = []
    while True:
        try:
            info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return reaped
        if info is None or info.si_pid in known:
            return reaped
        os.waitpid(info.si_pid, 0)
        reaped.append(info.si_pid)
