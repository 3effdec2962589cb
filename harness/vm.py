"""Run a script on a host in a virtual machine, and say truly how it ended."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from harness import cache, initramfs, kernels, kvm, proc, qemu, vmhost
from harness.errors import HarnessError

DEFAULT_GPU = "a100"
MEMORY_MB = 3072
# The emulated GPU's memory ends at 2 GiB.
MEMORY_LEAST_MB = 2560
TIMEOUT = 600.0
KEPT_RUNS = 40
KEPT_DISKS = 4
POLL_SECONDS = 0.1
PANIC = "Kernel panic - not syncing"


class Outcome(StrEnum):
    """How a run ended; only `passed` and `failed` are the guest's own word."""

    PASSED = "passed"
    FAILED = "failed"
    HUNG = "hung"
    PANICKED = "panicked"
    NO_STATUS = "no-status"


@dataclass(frozen=True)
class Share:
    """A folder of this machine seen in the guest, by 9p."""

    path: Path
    writable: bool = False


@dataclass(frozen=True)
class VmSpec:
    """A host to run something on.

    `kernel`: a release or the beginning of one. `gpu`: chip of the emulated GPU, None for none. `headers`: whether
    the kernel's headers are installed. `shares`: name to folder, at /mnt/<name>. `images`: name to root folder of
    a container image, packed once, read-only at /images/<name>, or to a file of one, which is /images/<name>.
    `scratch`: folders that lie on an empty disk instead of in memory. `kept`: folders on a disk that the next machine
    finds as this one leaves it, and the file which that disk is; it is made if missing. `timeout` in seconds for the
    whole run.

    One processor: several emulated ones take more of the machine's for the same work, and with them the kernel does not
    trust the processor's clock and reads a device's, which leaves the emulation each time. `parallel` is of
    Accelerator.arguments.
    """

    kernel: str = kernels.DEFAULT
    gpu: str | None = DEFAULT_GPU
    headers: bool = True
    memory_mb: int = MEMORY_MB
    cpus: int = 1
    parallel: bool = False
    shares: Mapping[str, Share | Path] = field(default_factory=dict)
    images: Mapping[str, Path] = field(default_factory=dict)
    scratch: Sequence[str] = ()
    kept: Mapping[str, Path] = field(default_factory=dict)
    append: str = ""
    timeout: float = TIMEOUT

    def __post_init__(self) -> None:
        if self.memory_mb < MEMORY_LEAST_MB:
            raise HarnessError(f"memory of {self.memory_mb} MB is too little", f"Give at least {MEMORY_LEAST_MB} MB")


@dataclass(frozen=True)
class VmResult:
    """What came of a run. `exit_status` is None unless the guest reported one; `seconds` is wall time."""

    outcome: Outcome
    exit_status: int | None
    output: str
    console: str
    seconds: float
    folder: Path
    repeat_command: str

    def check(self) -> VmResult:
        """Return itself if the run passed; raises HarnessError with all that helps to see why not."""
        if self.outcome is not Outcome.PASSED:
            raise HarnessError(self.report())
        return self

    def report(self) -> str:
        """Return the outcome, the ends of output and console, and the command that repeats the run."""
        status = "" if self.exit_status is None else f" with exit status {self.exit_status}"
        failed = "".join(f"{line}\n" for line in self.output.splitlines() if line.startswith("FAILED"))
        return (
            f"the virtual machine {self.outcome}{status} after {self.seconds:.1f} s\n{failed}"
            f"--- end of output ({self.folder / 'output'})\n{proc.tail(self.output)}\n"
            f"--- end of console ({self.folder / 'console'})\n{_telling_part(self.console)}\n"
            f"--- repeat with\n{self.repeat_command}"
        )


def run(spec: VmSpec, command: str | Sequence[str], *, live: bool = False) -> VmResult:
    """Run a bash script, or a command given as words, as root in a fresh guest.

    `live` copies the output to our own standard output as it comes. Raises HarnessError only if the machine cannot
    be set up; how the run ended is in the result.
    """
    script = command if isinstance(command, str) else shlex.join(command)
    folder = _run_folder(script)
    argv = _command(spec, folder, shell=False)
    started = time.monotonic()
    code = _follow(argv, folder, spec.timeout, live)
    seconds = time.monotonic() - started
    outcome, status = judge(code, _text(folder / "job/status"), _text(folder / "console"))
    return VmResult(
        outcome=outcome,
        exit_status=status,
        output=_text(folder / "output"),
        console=_text(folder / "console") + _text(folder / "qemu"),
        seconds=seconds,
        folder=folder,
        repeat_command=repeat_command(spec, folder / "job/script"),
    )


def shell(spec: VmSpec) -> int:
    """Join this terminal to a shell in a fresh guest; returns the shell's exit status, 1 if it gave none."""
    folder = _run_folder("")
    size = shutil.get_terminal_size()
    (folder / "job/terminal").write_text(f"LINES={size.lines} COLUMNS={size.columns}\n")
    # QEMU sets the terminal raw and may be killed before it sets it back.
    state = subprocess.run(["stty", "-g"], stdout=subprocess.PIPE, text=True).stdout.strip()
    try:
        subprocess.run(_command(spec, folder, shell=True))
    finally:
        if state:
            subprocess.run(["stty", state])
    status = _text(folder / "job/status").strip()
    return int(status) if status else 1


def judge(code: int | None, status: str, console: str) -> tuple[Outcome, int | None]:
    """Return the outcome from QEMU's exit code (None: the time was over), the status file and the console.

    The file is the truth and QEMU's exit code, value * 2 + 1 from isa-debug-exit, must agree with it.
    """
    if PANIC in console:
        return Outcome.PANICKED, None
    if code is None:
        return Outcome.HUNG, None
    if not status.strip().isdecimal():
        return Outcome.NO_STATUS, None
    reported = int(status)
    if code != (reported << 1 | 1) & 0xFF:
        return Outcome.NO_STATUS, None
    return (Outcome.PASSED if reported == 0 else Outcome.FAILED), reported


def repeat_command(spec: VmSpec, script: Path) -> str:
    """Return a shell command that runs the same script on the same host again."""
    words = ["python3", "-m", "harness", "vm", "--kernel", spec.kernel, "--gpu", spec.gpu or "none"]
    for name, share in spec.shares.items():
        one = share if isinstance(share, Share) else Share(share)
        words += ["--share", f"{name}={one.path}{':rw' if one.writable else ''}"]
    for name, path in spec.images.items():
        words += ["--image", f"{name}={path}"]
    words += [word for folder in spec.scratch for word in ("--scratch", folder)]
    words += [word for folder, disk in spec.kept.items() for word in ("--kept", f"{folder}={disk}")]
    words += [] if spec.headers else ["--no-headers"]
    words += ["--append", spec.append] if spec.append else []
    words += ["--memory", str(spec.memory_mb), "--cpus", str(spec.cpus), "--timeout", f"{spec.timeout:.0f}"]
    words += ["--parallel"] if spec.parallel else []
    return shlex.join([*words, "--script", str(script)])


def _run_folder(script: str) -> Path:
    runs = cache.root() / "runs"
    runs.mkdir(exist_ok=True)
    cache.prune(runs, KEPT_RUNS)
    folder = Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=runs))
    (folder / "job").mkdir()
    (folder / "job/script").write_text(script + "\n")
    return folder


def _command(spec: VmSpec, folder: Path, *, shell: bool) -> list[str]:
    kernel, root = kernels.get(spec.kernel), vmhost.root()
    disks = [root.disk, kernel.disk, *([kernel.headers_disk] if spec.headers else [])]
    lowers = len(disks)
    disks += [_image_disk(path) for path in spec.images.values()]
    shares = {name: one if isinstance(one, Share) else Share(one) for name, one in spec.shares.items()}
    mounts = [f"9p mnt-{name} /mnt/{name} {'rw' if one.writable else 'ro'}" for name, one in shares.items()]
    for i, (name, path) in enumerate(spec.images.items()):
        mounts.append(f"{'file' if path.is_file() else 'erofs'} {_disk(lowers + i)} /images/{name} ro")
    writable = [*spec.scratch, *spec.kept]
    mounts += [f"ext4 {_disk(len(disks) + i)} {folder} rw" for i, folder in enumerate(writable)]
    (folder / "job/mounts").write_text("".join(f"{line}\n" for line in mounts))
    argv = qemu.machine(kvm.accelerator(kernel, root), memory_mb=spec.memory_mb, cpus=spec.cpus, parallel=spec.parallel)
    argv += qemu.boot(kernel.vmlinux, initramfs.host(kernel, root), _command_line(spec, lowers, shell))
    argv += qemu.console(folder / "console") + qemu.output(None if shell else folder / "output")
    argv += qemu.disks(disks)
    for _ in spec.scratch:
        argv += qemu.scratch(vmhost.empty_disk())
    for disk in spec.kept.values():
        argv += qemu.kept(vmhost.kept_disk(disk))
    argv += qemu.share("job", folder / "job", readonly=False)
    for name, one in shares.items():
        argv += qemu.share(f"mnt-{name}", one.path.resolve(), readonly=not one.writable)
    return argv


def _command_line(spec: VmSpec, lowers: int, shell: bool) -> str:
    words = [
        "console=ttyS0 quiet loglevel=5 panic=-1 oops=panic mitigations=off random.trust_cpu=on",
        qemu.GPU_MEMORY,
        f"vmhost.disks={','.join(_disk(i) for i in range(lowers))}",
    ]
    words += [f"vmhost.gpu={spec.gpu}"] if spec.gpu else []
    words += [f"vmhost.shell={os.environ.get('TERM', 'dumb')}"] if shell else []
    return " ".join([*words, spec.append]).strip()


def _image_disk(path: Path) -> Path:
    if path.is_file():
        return path
    disk = vmhost.folder_disk(path)
    cache.prune(disk.parent.parent, KEPT_DISKS)
    return disk


def _disk(index: int) -> str:
    return f"vd{chr(ord('a') + index)}"


def _follow(argv: list[str], folder: Path, timeout: float, live: bool) -> int | None:
    """Run QEMU to its end, copying output as it grows; returns its exit code, None if the time was over."""
    deadline = time.monotonic() + timeout
    output = folder / "output"
    output.touch()
    with (folder / "qemu").open("wb") as errors, output.open("rb") as grown:
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
        try:
            while True:
                try:
                    code: int | None = child.wait(POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    code = None
                if live:
                    sys.stdout.buffer.write(grown.read())
                    sys.stdout.buffer.flush()
                if code is not None or time.monotonic() > deadline:
                    return code
        finally:
            child.kill()
            child.wait()


def _telling_part(console: str) -> str:
    """Return the panic and what it says, without which its long trace would be all one sees, else the end."""
    _, panic, trace = console.partition(PANIC)
    return panic + "\n".join(trace.splitlines()[: proc.TAIL_LINES]) if panic else proc.tail(console)


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
