"""The process seam: every program we start goes through here, in a process group of its own, with a time limit."""

import contextlib
import ctypes
import os
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path

from driverctr.errors import Code, DriverError
from driverctr.log import Log
from driverctr.records import frozen

PR_SET_CHILD_SUBREAPER = 36
"""linux/prctl.h"""

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_LIMIT = 60.0
"""Seconds a small tool may take before it is ended."""

KILL_LIMIT = 2.0
"""Seconds a program has after SIGKILL: what lives on then sleeps in the kernel, where no signal reaches it."""


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
    """Starts programs in a given environment; the only importer of subprocess."""

    environment: Mapping[str, str] = field(default_factory=lambda: {"PATH": DEFAULT_PATH})
    log: Log = field(default_factory=Log)

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
        with self._spawn(words, extra_env, cwd, subprocess.PIPE, subprocess.PIPE) as child:
            try:
                stdout, stderr = child.communicate(timeout=limit)
            except subprocess.TimeoutExpired:
                raise DriverError(
                    Code.COMMAND_FAILED,
                    f"`{shlex.join(words)}` did not end within {limit:.0f} s and was stopped",
                ) from None
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
    ) -> int:
        """Run a program, hand over each line of its output (both streams) as it comes, return the exit status.

        Raises DriverError (command-failed) where it is missing or takes longer than `limit` seconds.
        """
        words = tuple(os.fspath(word) for word in argv)
        self.log.debug("+ " + shlex.join(words))
        deadline = time.monotonic() + limit
        with self._spawn(words, extra_env, cwd, subprocess.PIPE, subprocess.STDOUT) as child:
            assert child.stdout is not None
            for line in _lines(child.stdout.fileno(), deadline):
                on_line(line)
            try:
                return child.wait(timeout=max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise DriverError(
                    Code.COMMAND_FAILED,
                    f"`{shlex.join(words)}` did not end within {limit:.0f} s and was stopped",
                ) from None

    @contextlib.contextmanager
    def _spawn(
        self,
        words: tuple[str, ...],
        extra_env: Mapping[str, str] | None,
        cwd: Path | None,
        stdout: int,
        stderr: int,
    ) -> Iterator["subprocess.Popen[bytes]"]:
        """A child in its own session; whatever ends this block early ends the child's whole group.

        A child that not even SIGKILL ends is left: a DriverError that ended the block says so.
        """
        try:
            child = subprocess.Popen(
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
        try:
            yield child
        except BaseException as error:
            end_group(child.pid)  # the leader may have ended and left others of its group behind
            try:
                child.wait(KILL_LIMIT)
            except subprocess.TimeoutExpired:
                if isinstance(error, DriverError):
                    raise _unending(error, child.pid) from None
            raise
        finally:
            for pipe in (child.stdout, child.stderr):
                if pipe is not None:
                    pipe.close()


def _unending(error: DriverError, pid: int) -> DriverError:
    """The same error, of a child that lives on."""
    hangs = f"; not even SIGKILL ends it: pid {pid} hangs in the kernel and is left"
    return DriverError(
        error.code, error.message.removesuffix(" and was stopped") + hangs, error.remedy or "See the kernel log"
    )


def _lines(descriptor: int, deadline: float) -> Iterator[str]:
    """The lines a pipe brings, until it closes or the deadline (monotonic seconds) has come."""
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if not selector.select(left):
                continue
            chunk = os.read(descriptor, 65536)
            if not chunk:
                break
            *whole, pending = (pending + chunk).split(b"\n")
            for line in whole:
                yield line.decode(errors="replace")
    if pending:
        yield pending.decode(errors="replace")


def end_group(leader: int, grace: float = 0.5) -> None:
    """End a process group: SIGTERM, then after `grace` seconds SIGKILL; nothing of it survives."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGTERM)
        with contextlib.suppress(OSError), contextlib.closing(_PidFd(leader)) as watched:
            watched.wait(grace)
        os.killpg(leader, signal.SIGKILL)


class _PidFd:
    """A pidfd (pidfd_open(2)): readable when the process has ended, whoever its parent is."""

    def __init__(self, pid: int) -> None:
        self.descriptor = os.pidfd_open(pid)

    def wait(self, seconds: float) -> bool:
        """Wait for the end; False when it did not come in time."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.descriptor, selectors.EVENT_READ)
            return bool(selector.select(seconds))

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.descriptor)


def wait_for_end(pid: int, seconds: float, wait: Callable[[int, float], bool] | None = None) -> bool:
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
