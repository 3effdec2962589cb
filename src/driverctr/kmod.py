"""The kmod tools: modprobe, rmmod, depmod, called through `sh`; what fails is told in the kernel's words."""

import contextlib
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from driverctr.diagnose import recognise
from driverctr.errors import Code, DriverError
from driverctr.explain import EXPLANATIONS
from driverctr.facts import kernellog, tasks
from driverctr.facts.kernellog import Extract
from driverctr.log import Log
from driverctr.paths import DEFAULT_PATH, Paths
from driverctr.records import field, frozen
from driverctr.run import KILL_LIMIT, Wait, wait_for_end


@frozen
class Answer:
    """A kmod tool's exit status and words."""

    status: int
    stdout: str
    stderr: str
    command: str = ""

    @property
    def words(self) -> str:
        """What the tool said, in one line."""
        return "; ".join((self.stderr.strip() or self.stdout.strip()).splitlines()[-3:])


@frozen
class Kmod:
    """Calls the tools with our environment; `sh` is imported at the first call, it is not cheap.

    `wait(descriptor, seconds)` may give a tool up earlier than its limit (signals.Budget).
    """

    environment: Mapping[str, str] = field(default_factory=lambda: {"PATH": DEFAULT_PATH})
    log: Log = field(default_factory=Log)
    paths: Paths = field(default_factory=Paths)
    wait: Wait | None = None

    def load(self, name: str, limit: float) -> None:
        """Load a module and what it depends on with modprobe.

        Raises DriverError: stuck where it hangs in the kernel, else what the kernel's words mean, or load-failed.
        """
        self._act(Code.LOAD_FAILED, ("modprobe", name), (name,), limit)

    def load_below(self, root: Path, name: str, parameters: Sequence[str], limit: float) -> None:
        """Load a module with the modprobe and the module tree of another root; raises DriverError as `load` does."""
        self._act(Code.LOAD_FAILED, ("chroot", str(root), "modprobe", name, *parameters), (name,), limit)

    def unload(self, names: Sequence[str], limit: float) -> None:
        """Unload modules in this order with one rmmod; raises DriverError (stuck, in-use, unload-failed)."""
        self._act(Code.UNLOAD_FAILED, ("rmmod", *names), names, limit)

    def index(self, kernel_release: str, base: Path) -> None:
        """Write modules.dep and its kin for <base>/lib/modules/<release> with depmod.

        Raises DriverError: no-space, or load-failed; then an index may be there that is cut short.
        """
        answer = self._call("depmod", "-b", str(base), kernel_release)
        if answer.status != 0:
            meant = recognise((), answer.stderr)
            code = Code.NO_SPACE if meant and meant.code is Code.NO_SPACE else Code.LOAD_FAILED
            raise DriverError(code, f"depmod for {kernel_release} failed: {answer.words}", EXPLANATIONS[code].remedy)

    def dependencies(self, name: str, kernel_release: str, base: Path) -> list[Path]:
        """The files modprobe would insert for a module of a tree, in order; [] where the tree lacks it."""
        answer = self._call("modprobe", "-d", str(base), "-S", kernel_release, "--show-depends", name)
        lines = (line.split() for line in answer.stdout.splitlines())
        return [Path(words[1]) for words in lines if len(words) > 1 and words[0] == "insmod"]

    def prepare(self) -> None:
        """Import `sh` ahead of the first call, for whoever waits for something else anyway."""
        import sh  # noqa: F401  # only to have it loaded

    def _act(self, code: Code, words: Sequence[str], names: Sequence[str], limit: float) -> None:
        """Call a tool that acts on the kernel; raises DriverError with the kernel's words, `code` if they say nothing.

        rmmod says itself all that is to be known; what the kernel says beside it is of other things.
        """
        with kernellog.Mark(self.paths) as mark:
            answer = self._call(*words, limit=limit)
            if answer.status == 0:
                return
            said = mark.read()
        of_rmmod = words[0] == "rmmod"
        meant = recognise(() if of_rmmod else said.about(names), answer.stderr)
        if meant is None or (of_rmmod and meant.code is not Code.IN_USE):
            raise DriverError(
                code, f"{answer.command} failed: {_words(answer, said, names)}", EXPLANATIONS[code].remedy
            )
        raise DriverError(
            meant.code, f"{answer.command} failed: {meant.says} ({_words(answer, said, names)})", meant.remedy
        )

    def _call(self, tool: str, *words: str, limit: float = 60.0) -> Answer:
        """Run one tool in a session of its own; `sh` gives a terminal as stdout unless told otherwise.

        It is waited for by its pidfd: `sh` itself waits for ever for a child that no signal can end.
        """
        import sh

        line = " ".join((tool, *words))
        self.log.debug(f"+ {line}")
        try:
            command: Any = sh.Command(tool, search_paths=self.environment["PATH"].split(":"))
            running = command(
                *words,
                _env={**self.environment, "LC_ALL": "C.UTF-8"},
                _tty_out=False,
                _new_session=True,
                _return_cmd=True,
                _bg=True,
                _bg_exc=False,
                _ok_code=range(-64, 256),
            )
        except sh.CommandNotFound as error:
            raise DriverError(
                Code.COMMAND_FAILED,
                f"`{tool}` was not found on PATH={self.environment['PATH']}",
                "Install kmod",
            ) from error
        started = time.monotonic()
        if not wait_for_end(running.pid, limit, self.wait):
            raise self._give_up(line, running.pid, time.monotonic() - started)
        running.wait()
        stdout, stderr = (text.decode(errors="replace") for text in (running.stdout, running.stderr))
        return Answer(running.exit_code, stdout, stderr, line)

    def _give_up(self, line: str, pid: int, seconds: float) -> DriverError:
        """End a tool that takes too long; where not even SIGKILL ends it, it is left, with all it has of the kernel."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        late = f"`{line}` did not end within {seconds:.0f} s"
        if wait_for_end(pid, KILL_LIMIT):
            code = Code.UNLOAD_FAILED if line.startswith("rmmod") else Code.LOAD_FAILED
            return DriverError(code, f"{late} and was stopped", EXPLANATIONS[code].remedy)
        task = tasks.read(self.paths, pid)
        return DriverError(
            Code.STUCK, f"{late}, and no signal ends it: {task or f'pid {pid}'}", EXPLANATIONS[Code.STUCK].remedy
        )


def _words(answer: Answer, said: Extract, names: Sequence[str]) -> str:
    """The tool's own words and the kernel's last lines about the driver, one of these modules, or the loader's."""
    kernel = kernellog.last(said.about(names))
    heard = f"kernel: {kernel}" if kernel else said.unknown
    return "; ".join(filter(None, (answer.words, heard)))
