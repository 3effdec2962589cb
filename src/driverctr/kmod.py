"""The kmod tools: modprobe, rmmod, depmod, modinfo, called through `sh`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from driverctr.errors import Code, DriverError
from driverctr.log import Log
from driverctr.run import DEFAULT_PATH

LOAD_LIMIT = 300.0
"""Seconds a module's init may take: a large node brings up its GPUs one after the other."""


@dataclass(frozen=True)
class Answer:
    """A kmod tool's exit status and words."""

    status: int
    stdout: str
    stderr: str

    @property
    def words(self) -> str:
        """What the tool said, in one line."""
        return "; ".join((self.stderr.strip() or self.stdout.strip()).splitlines()[-3:])


@dataclass(frozen=True)
class Kmod:
    """Calls the tools with our environment; `sh` is imported at the first call, it is not cheap."""

    environment: Mapping[str, str] = field(default_factory=lambda: {"PATH": DEFAULT_PATH})
    log: Log = field(default_factory=Log)

    def load(self, name: str, limit: float = LOAD_LIMIT) -> None:
        """Load a module and what it depends on with modprobe; raises DriverError (load-failed)."""
        answer = self._call("modprobe", name, limit=limit)
        if answer.status != 0:
            raise DriverError(Code.LOAD_FAILED, f"modprobe {name} failed: {answer.words}", "See the kernel log (dmesg)")

    def unload(self, names: Sequence[str], limit: float) -> None:
        """Unload modules in this order with one rmmod; raises DriverError (unload-failed)."""
        answer = self._call("rmmod", *names, limit=limit)
        if answer.status != 0:
            raise DriverError(Code.UNLOAD_FAILED, f"rmmod {' '.join(names)} failed: {answer.words}")

    def index(self, kernel_release: str, base: Path) -> None:
        """Write modules.dep and its kin for <base>/lib/modules/<release> with depmod; raises DriverError."""
        answer = self._call("depmod", "-b", str(base), kernel_release)
        if answer.status != 0:
            raise DriverError(Code.LOAD_FAILED, f"depmod for {kernel_release} failed: {answer.words}")

    def dependencies(self, name: str, kernel_release: str, base: Path) -> list[Path]:
        """The files modprobe would insert for a module of a tree, in order; [] where the tree lacks it."""
        answer = self._call("modprobe", "-d", str(base), "-S", kernel_release, "--show-depends", name)
        lines = (line.split() for line in answer.stdout.splitlines())
        return [Path(words[1]) for words in lines if len(words) > 1 and words[0] == "insmod"]

    def prepare(self) -> None:
        """Import `sh` ahead of the first call, for whoever waits for something else anyway."""
        import sh  # noqa: F401

    def _call(self, tool: str, *words: str, limit: float = 60.0) -> Answer:
        """Run one tool in a session of its own; `sh` gives a terminal as stdout unless told otherwise."""
        import sh

        self.log.debug("+ " + " ".join((tool, *words)))
        try:
            command: Any = sh.Command(tool, search_paths=self.environment["PATH"].split(":"))
            done = command(
                *words,
                _env={**self.environment, "LC_ALL": "C.UTF-8"},
                _tty_out=False,
                _new_session=True,
                _return_cmd=True,
                _ok_code=range(-64, 256),
                _timeout=limit,
            )
        except sh.CommandNotFound as error:
            raise DriverError(
                Code.COMMAND_FAILED,
                f"`{tool}` was not found on PATH={self.environment['PATH']}",
                "Install kmod",
            ) from error
        except sh.TimeoutException as error:
            code = Code.UNLOAD_FAILED if tool == "rmmod" else Code.LOAD_FAILED
            raise DriverError(code, f"`{tool} {' '.join(words)}` did not end within {limit:.0f} s") from error
        return Answer(done.exit_code, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
