"""The one error type: a stable code, the cause in a sentence, and the remedy."""

import errno
from collections.abc import Mapping
from enum import StrEnum

from driverctr.conceal import conceal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Code(StrEnum):
    """What went wrong, in words that stay the same from release to release; each has its own exit status."""

    exit_status: int

    def __new__(cls, value: str, exit_status: int) -> "Code":
        """Attach the exit status to the member (Python enum documentation, "When to use __new__")."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.exit_status = exit_status
        return member

    BAD_USAGE = "bad-usage", 2
    BAD_SETTING = "bad-setting", 3
    ALREADY_RUNNING = "already-running", 4
    NO_PRIVILEGE = "no-privilege", 5
    IN_USE = "in-use", 6
    NOT_SHARED = "not-shared", 7
    NO_MODULE_SUPPORT = "no-module-support", 8
    SIGNATURE_NEEDED = "signature-needed", 9
    NO_MODULES = "no-modules", 10
    HEADERS_MISSING = "headers-missing", 11
    COMPILER_MISSING = "compiler-missing", 12
    BUILD_FAILED = "build-failed", 13
    PACKAGES_FAILED = "packages-failed", 14
    NO_SPACE = "no-space", 15
    NO_MEMORY = "no-memory", 16
    NO_GPU = "no-gpu", 17
    GPU_LEGACY = "gpu-legacy", 18
    GPU_TOO_NEW = "gpu-too-new", 19
    LOAD_FAILED = "load-failed", 20
    UNLOAD_FAILED = "unload-failed", 21
    MOUNT_FAILED = "mount-failed", 22
    FIRMWARE_FAILED = "firmware-failed", 23
    DEVICE_NODES_FAILED = "device-nodes-failed", 24
    DAEMON_FAILED = "daemon-failed", 25
    WRONG_MODULE_TYPE = "wrong-module-type", 26
    GPU_TAKEN = "gpu-taken", 27
    HOST_DRIVER = "host-driver", 28
    FABRIC_MANAGER_MISSING = "fabric-manager-missing", 29
    NOT_READY = "not-ready", 30
    GPU_INIT_FAILED = "gpu-init-failed", 31
    NODE_FILE = "node-file", 32
    COMMAND_FAILED = "command-failed", 33
    GPU_LOST = "gpu-lost", 34
    STUCK = "stuck", 35
    NO_DEVICE = "no-device", 36
    UNKNOWN_SYMBOL = "unknown-symbol", 37
    WRONG_KERNEL = "wrong-kernel", 38
    KEY_REJECTED = "key-rejected", 39
    BAD_PARAMETER = "bad-parameter", 40
    OTHER_VERSION = "other-version", 41
    WRONG_ARCHITECTURE = "wrong-architecture", 42
    STORE_UNUSABLE = "store-unusable", 43
    REMOTE_FAILED = "remote-failed", 44
    SIGNATURE_INVALID = "signature-invalid", 45
    PACKAGES_UNTRUSTED = "packages-untrusted", 46
    BUG = "bug", 70
    """sysexits.h EX_SOFTWARE: an error that is ours, with its traceback in the log."""


class DriverError(Exception):
    """A failure with a cause a user can act upon."""

    def __init__(self, code: Code, message: str, remedy: str = "") -> None:
        """Keep the three parts apart, so that log, status and termination message each print them their way.

        They are in other programs' and servers' words too, which may have a secret in them. `in_use` is who uses the
        driver where that is the cause, as status and metrics tell it.
        """
        self.code = code
        self.in_use: tuple[Mapping[str, Any], ...] = ()
        self.message = conceal(message)
        self.remedy = conceal(remedy)
        super().__init__(self.message)

    def __str__(self) -> str:
        """For a log line, in which more may follow."""
        remedy = self.remedy.removesuffix(".")
        return f"{self.message}. {remedy}" if remedy else self.message


def of_bug(error: BaseException) -> DriverError:
    """What is told of an error that is ours; its traceback is for the log."""
    return DriverError(Code.BUG, f"{type(error).__name__}: {error}", "Report it, with the traceback in the log")


def of_os(what: str, error: OSError) -> DriverError:
    """The node's own word for what an act met that nothing more telling was made of; `error` names the file."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DriverError(Code.NO_SPACE, f"{what}: {error}", "Free space there")
    return DriverError(Code.NODE_FILE, f"{what}: {error}", "See what keeps us from that file: mount, mode, medium")


def code_of(error: OSError | DriverError) -> str:
    """The code to log beside an error that is only told of."""
    return (error if isinstance(error, DriverError) else of_os("", error)).code.value


class Stopped(BaseException):
    """A signal asked us to stop; not an Exception, so that no `except Exception` on the way keeps us alive."""

    def __init__(self, signal_number: int) -> None:
        """Keep the number for the exit status."""
        super().__init__(signal_number)
        self.signal_number = signal_number
        self.was_ready = False


def stop_behind(error: BaseException | None) -> Stopped | None:
    """The signal that another error was made of, if one was.

    It may come in the middle of an import, and Python makes a RuntimeError of what a class definition meets there
    (`__set_name__`, Python 3.11).
    """
    while error is not None and not isinstance(error, (Stopped, DriverError)):
        error = error.__cause__ or error.__context__
    return error if isinstance(error, Stopped) else None
