"""In a container of the driver: starts that SIGKILL ends at each step's boundary, and the starts after them.

kill_at.py boundaries: before and after each step of the real plan, one killed start, then one that must end ready.
kill_at.py boundaries loaded: the same from unload to load, on a driver that was loaded with other parameters.
kill_at.py userspace: around the step that puts another version's userspace in place of ours, which does not load.
kill_at.py cycles COUNT: so many starts and clean stops, and what they leave of fds, mounts, memory and modules.
kill_at.py before|after STEP [kill|oom]: one start that ends there, by SIGKILL or by the control group's memory limit.

The product has no hook for this: its own lifecycle runs here, in a forked process, with one method wrapped.
"""

import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, "/opt/driverctr/lib")

import psutil
import sh

from driverctr import bringup, config, plan, survey, verbs
from driverctr.paths import Paths
from driverctr.plan import StepName

RUN = Path("/run/nvidia")
READY = RUN / "validations/.driver-ctr-ready"
FIRMWARE_PATH = Path("/sys/module/firmware_class/parameters/path")
WRITTEN = (RUN, Path("/etc/modprobe.d"), Path("/lib/modules"), Path("/opt/driverctr/modules"), Path("/var/tmp"))
CLONE_NEWNS = 0x00020000  # linux/sched.h
# The folder that /drivers is, where it can be written.
ASKED = Path("/asked/nvidia.conf")
VERSIONS = ("470.223.02", "535.309.01")
LIMIT = 120.0
SETTLES_S = 30


def by_kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def by_memory() -> None:
    hoard = []
    while True:
        hoard.append(b"x" * (16 << 20))


def start(when: str = "", step: str = "", end: Callable[[], None] = by_kill) -> int:
    """One start in this process, ended at the boundary; returns its exit status if it is none."""
    original = bringup.BringUp.apply

    def apply(self: bringup.BringUp, planned: object, facts: object) -> None:
        here = planned.name.value == step  # type: ignore[attr-defined]  # read untyped
        if here and when == "before":
            end()
        original(self, planned, facts)  # type: ignore[arg-type]  # as it came
        if here and when == "after":
            end()

    bringup.BringUp.apply = apply  # type: ignore[method-assign]  # in this process alone
    return verbs.run(["init"])


def fork(log: Path, when: str = "", step: str = "", *, own_mounts: bool = False) -> int:
    """Start in a child; one with mounts of its own gets a namespace for them, which dies with it, as a container's."""
    pid = os.fork()
    if pid:
        return pid
    status = 99
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if own_mounts:
            assert ctypes.CDLL(None).unshare(CLONE_NEWNS) == 0
        status = start(when, step)
    except BaseException:  # noqa: BLE001  # whatever it is, the child must not run on as its parent
        traceback.print_exc()
    finally:
        os._exit(status)


def wait(pid: int) -> int:
    """The exit status, negative for a signal; a child that takes too long is killed."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def marker() -> int:
    """What tells one ready marker from another; 0 for none."""
    return READY.stat().st_mtime_ns if READY.exists() else 0


def wait_ready(pid: int, former: int) -> bool:
    """Wait for a marker that is not the former one, which a start killed after it was published has left."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if marker() not in (0, former):
            return True
        time.sleep(0.05)
    return False


def own_mounts() -> list[str]:
    return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def host_mounts() -> list[str]:
    lines = Path("/proc/1/mountinfo").read_text().splitlines()
    return [target for line in lines if (target := line.split()[4]).startswith(f"{RUN}/")]


def loaded() -> list[str]:
    return [line.split()[0] for line in Path("/proc/modules").read_text().splitlines() if line.startswith("nvidia")]


def ours() -> list[str]:
    """Processes of this container but this one, by its control group."""
    group = Path("/proc/self/cgroup").read_text()
    found = []
    for process in psutil.process_iter():
        try:
            if Path(f"/proc/{process.pid}/cgroup").read_text() == group and process.pid != os.getpid():
                found.append(process.name())
        except OSError:
            continue
    return sorted(found)


def half_written() -> list[str]:
    """Names that are not whole files of ours: temporary ones and stages begin with a dot."""
    markers = {".driver-ctr-ready", ".driver-daemons-status"}
    found = [str(path) for path in Path("/var/tmp").glob("driverctr-build-*")]
    for top in WRITTEN:
        for folder, folders, files in os.walk(top):
            found += [f"{folder}/{name}" for name in files if name[0] == "." and name not in markers]
            # The driver root shows our own root again, and /proc in it.
            folders[:] = [name for name in folders if Path(folder, name) != RUN / "driver"]
    return found


def settled(pid: int) -> list[str]:
    """What is not as it must be, once the second start is done with what it sees to after it is ready.

    It runs tools, and writes its status: what is seen in the middle of that is gone when one looks again.
    """
    deadline = time.monotonic() + SETTLES_S
    while (found := differences(pid)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def differences(pid: int) -> list[str]:
    """What is not as it must be while the second start is ready."""
    roots = [target for target in host_mounts() if target == f"{RUN}/driver"]
    expected = {
        "modules": (sorted(loaded()), ["nvidia", "nvidia_modeset", "nvidia_uvm"]),
        "driver roots": (len(roots), 1),
        "processes": (ours(), sorted(["nvidia-persistenced", psutil.Process(pid).name()])),
        "half-written": (half_written(), []),
        "pid file": ((RUN / "nvidia-driver.pid").read_text().strip(), str(pid)),
    }
    return [f"{what}: {found}, not {wanted}" for what, (found, wanted) in expected.items() if found != wanted]


def remains() -> list[str]:
    """What the second start's stop left."""
    files = []
    for folder, folders, names in os.walk(RUN):
        files += [f"{folder}/{name}" for name in names]
        # The driver root, if it is left, has a line of its own, and processes in it that come and go.
        folders[:] = [name for name in folders if Path(folder, name) != RUN / "driver"]
    path = FIRMWARE_PATH.read_text().strip()
    return [*loaded(), *host_mounts(), *files, *ours(), *half_written(), *([path] if path else [])]


def load_as_nobody_asked() -> None:
    """Have the driver loaded, without the parameters in /drivers."""
    for name in ("nvidia", "nvidia-uvm", "nvidia-modeset"):
        sh.Command("insmod")(*Path("/opt/driverctr/modules").glob(f"*/*/{name}.ko"))


def one(when: str, step: str) -> list[str]:
    log = Path(f"/tmp/{when}-{step}")
    return killed(log, when, step, own_mounts=when == "after") or second(log.with_suffix(".second"))


def killed(log: Path, when: str, step: str, *, own_mounts: bool) -> list[str]:
    status = wait(fork(log, when, step, own_mounts=own_mounts))
    return [] if status == -signal.SIGKILL else [f"the first start ended with {status}", log.read_text()]


def second(log: Path, version: str = "") -> list[str]:
    """What is wrong with the start after it, while it is ready and after its stop."""
    former = marker()
    pid = fork(log)
    if not wait_ready(pid, former):
        return [f"the second start is not ready, it ended with {wait(pid)}", log.read_text()]
    problems = settled(pid)
    problems += of_version(version) if version else []
    os.kill(pid, signal.SIGTERM)
    status = wait(pid)
    problems += [] if status == 0 else [f"its stop ended with {status}"]
    if version:  # what did not load is to be tried again
        sh.Command("driverctr")("unload")
    problems += [f"left: {name}" for name in remains()]
    return [*problems, log.read_text()] if problems else []


def of_version(version: str) -> list[str]:
    """What is not of that version: modules, and the userspace that neighbours and we ourselves see."""
    (other,) = (one for one in VERSIONS if one != version)
    there = Path("/sys/module/nvidia/version").read_text().strip()
    problems = [] if there == version else [f"the kernel has {there}"]
    for root in (RUN / "driver", Path("/")):
        problems += [f"{path} is there" for path in root.glob(f"usr/lib/*-linux-gnu/libnvidia-ml.so.{other}")]
        try:
            sh.Command("chroot")(root, "nvidia-smi")
        except sh.ErrorReturnCode as error:
            problems.append(f"nvidia-smi in {root}: {error}")
    return problems


def around_the_userspace() -> int:
    """Killed before and after that step: with our mounts, as a container, and in mounts that the next start finds."""
    failures, mounts = 0, own_mounts()
    for when, die_with_it, version in (
        ("before", False, VERSIONS[0]),
        ("after", True, VERSIONS[0]),
        ("after", False, VERSIONS[1]),
    ):
        began = time.monotonic()
        log = Path(f"/tmp/{when}-userspace")
        ASKED.write_text("fail_init=19\n")
        problems = killed(log, when, StepName.USERSPACE.value, own_mounts=die_with_it)
        if version == VERSIONS[1]:
            ASKED.unlink()
        problems = problems or second(log.with_suffix(".second"), version)
        problems += [f"left: {target}" for target in own_mounts() if target not in mounts]
        failures += bool(problems)
        where = "with its mounts" if die_with_it else "its mounts stay"
        print("\n".join([f"{'NOT OK' if problems else 'ok'}: killed {when} it, {where}; {version} is next", *problems]))
        print(f"({time.monotonic() - began:.1f} s)", flush=True)
    return 1 if failures else 0


def boundaries(*, of_a_reload: bool = False) -> int:
    settings = config.load(os.environ)
    steps = [planned.name.value for planned in plan.make(settings, survey.survey(Paths(), settings)).steps]
    # A userspace is put in place of ours only on the way back to another version.
    expected = [name.value for name in StepName if name is not StepName.USERSPACE]
    failures = 0 if steps == expected else 1
    print(f"steps of the plan: {', '.join(steps)}", flush=True)
    if of_a_reload:
        steps = steps[steps.index(StepName.UNLOAD) : steps.index(StepName.LOAD) + 1]
    for step in steps:
        for when in ("before", "after"):
            if of_a_reload:
                load_as_nobody_asked()
            began = time.monotonic()
            problems = one(when, step)
            failures += bool(problems)
            print("\n".join([f"{'NOT OK' if problems else 'ok'}: killed {when} {step}", *problems]), end=" ")
            print(f"({time.monotonic() - began:.1f} s)", flush=True)
    return 1 if failures else 0


def held() -> dict[str, int]:
    """What a start and its stop must leave as they were: of this process, of both mount tables, and of the kernel."""
    memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return {
        "fds": sum(1 for _ in Path("/proc/self/fd").iterdir()),
        "our mounts": len(Path("/proc/self/mountinfo").read_text().splitlines()),
        "host's mounts": len(Path("/proc/1/mountinfo").read_text().splitlines()),
        "open files": int(Path("/proc/sys/fs/file-nr").read_text().split()[0]) // 512,
        "modules": len(Path("/proc/modules").read_text().splitlines()),
        "unreclaimable kB": int(memory["SUnreclaim"].split()[0]),
    }


def cycles(count: int) -> int:
    """So many starts and stops; what is held after the first ones must be what is held at the end."""
    log = Path("/tmp/cycle")
    before: dict[str, int] = {}
    began = time.monotonic()
    for number in range(count):
        former = marker()
        pid = fork(log)
        if not wait_ready(pid, former):
            print(f"cycle {number} is not ready, it ended with {wait(pid)}", log.read_text(), sep="\n")
            return 1
        os.kill(pid, signal.SIGTERM)
        status, left = wait(pid), remains()
        if status or left:
            print(f"cycle {number} ended with {status}, left: {left}", log.read_text(), sep="\n", flush=True)
            return 1
        # The first ones fill caches.
        before = held() if number == min(4, count // 2) else before
        if number % 20 == 19:
            print(f"after {number + 1} cycles, {time.monotonic() - began:.0f} s: {held()}", flush=True)
    after = held()
    print(f"{count} cycles in {time.monotonic() - began:.0f} s; early: {before}; at the end: {after}")
    # A leaked page a cycle would be 4 kB: half of that is more than what caches come and go by.
    slack = {"unreclaimable kB": 2048 + 2 * count, "open files": 1}
    return int(any(after[what] > before[what] + slack.get(what, 0) for what in after))


def main(words: list[str]) -> int:
    if words[0] == "cycles":
        return cycles(int(words[1]))
    if words[0] == "boundaries":
        return boundaries(of_a_reload=words[1:] == ["loaded"])
    if words[0] == "userspace":
        return around_the_userspace()
    return start(words[0], words[1], by_memory if words[2:] == ["oom"] else by_kill)


sys.exit(main(sys.argv[1:]))
