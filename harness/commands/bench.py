"""`./dev bench`: each number as a ratio against a bare command in the same run."""

from __future__ import annotations

import argparse
import json
import re
import signal
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness import containers, headerfetch, image, imagefiles, kernels, standin, vm
from harness.errors import HarnessError
from harness.vm import VmSpec

GUEST = Path(__file__).resolve().parents[1] / "guest"
TIMEOUT_S = 1200
CYCLES = 200
EVENTS = 1000
# Seconds after the last event in which the wait is to have judged them all.
SETTLE_S = 2
PCI = Path("/sys/bus/pci/devices")
# Seconds into a build: some are in its tests of the kernel, some in the compilation of the modules.
SIGNAL_MOMENTS = ("1", "3", "8", "20", "30")
IN_VM = """
. /usr/lib/vm-host/lib.sh
mkdir -p /run/nvidia
# As on a node's own disk: what is shared by the machine below is read anew each time.
cp -r /mnt/modules /tmp/modules
run_container podman-crun bench /images/driver --pid=host -v /run/nvidia:/run/nvidia:rshared \
    -v /tmp/modules:/opt/driverctr/modules:ro -v /mnt/guest:/bench:ro -e VERIFY_DEPTH=devices \
    -- bash /bench/bench_inner.sh 2 60 >/dev/null
status=$(container podman-crun wait bench)
container podman-crun logs bench
exit "$status"
"""


@dataclass(frozen=True)
class Row:
    """One number: what, ours, what it is compared with (None: nothing), and the bar."""

    what: str
    ours: float
    bare: float | None
    bar: float
    note: str = ""

    @property
    def value(self) -> float:
        """The ratio, or the number itself."""
        return self.ours / self.bare if self.bare is not None else self.ours

    def line(self) -> str:
        """A row of the printed table."""
        bare = "" if self.bare is None else f"{self.bare:.3f}"
        verdict = "ok" if self.value <= self.bar else "MISSED"
        return (
            f"| {self.what} | {self.ours:.3f} | {bare} | {self.value:.2f} | {self.bar:.2f} | {verdict} | {self.note} |"
        )


def main(argv: list[str]) -> int:
    """Measure, print a table, return 1 if a bar is missed."""
    parser = argparse.ArgumentParser(prog="dev bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; default: all")
    parts = parser.parse_args(argv).parts or list(PARTS)
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    # As an exception it takes what runs with it: containers and virtual machines.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    tag = image.build()
    print("| what | ours | bare | ratio or value | bar | | |\n|---|---|---|---|---|---|---|", flush=True)
    missed = 0
    for part in parts:
        for row in PARTS[part](tag):
            print(row.line(), flush=True)
            missed += row.value > row.bar
    return 1 if missed else 0


def measure_probe(tag: str) -> list[Row]:
    """CPU seconds of what probes and people ask for often, against a bare interpreter, natively in a container."""
    calls = (("probe_nvidia_peermem", 0, 1.6), ("--help", 0, 3.0), ("status", 30, 3.0), ("status --json", 30, 3.0))
    found = run_guest(tag, "bench_probe.py", *(f"{words}={status}" for words, status, _ in calls))
    return [Row(f"{words} : python3 -I -c pass (CPU s)", found[words], found["bare"], bar) for words, _, bar in calls]


def measure_status(tag: str) -> list[Row]:
    """CPU seconds of `status` on a node that serves, against a bare interpreter, natively in a container.

    The node is a tree with 8 GPUs, 450 processes, a store, and two kernels to boot.
    """
    calls = [f"{words} {node}" for words in ("status", "status --json") for node in ("idle", "used")]
    found = run_guest(tag, "bench_status.py", "status", "status --json")
    return [Row(f"{call} : python3 -I -c pass (CPU s)", found[call], found["bare"], 3.0) for call in calls]


def measure_holders(tag: str) -> list[Row]:
    """Wall seconds of who-uses-it among a thousand processes, natively in a container."""
    # What looking into others' /proc/<pid> takes, and no more: `privileged` is refused where the machine itself has not
    # every capability.
    looking: dict[str, Any] = {"cap_add": ["SYS_PTRACE", "SYS_ADMIN"], "security_opt": ["apparmor=unconfined"]}
    found = run_guest(tag, "bench_holders.py", pid_mode="host", **looking)
    note = f"CPU: {found['cpu']:.3f} s"
    return [Row("who uses it, among 1000 processes (s)", found["seconds"], None, 0.5, note)]


def measure_build(tag: str) -> list[Row]:
    """CPU seconds of a native build against plain make, in one container with the kernel's headers."""
    found = build_natively(tag, "bench_build.py", image.DEFAULT_DRIVER, "1")
    return [Row("native build : plain make of the same tree (CPU s)", found["ours"], found["bare"], 1.05)]


def measure_signal(tag: str) -> list[Row]:
    """Wall seconds from a signal in the middle of a native build to the end of what it runs; the longest of some."""
    stops = build_natively(tag, "bench_signal.py", *SIGNAL_MOMENTS)
    if not stops:
        raise HarnessError("no signal met a compiler at work")
    slowest = max(stop["group"] for stop in stops)
    note = f"of {len(stops)} moments; its own end, {max(stop['all'] for stop in stops):.2f} s"
    return [Row("SIGTERM in a native build to the end of its process group (s)", slowest, None, 1.0, note)]


def measure_second(tag: str) -> list[Row]:
    """Compiler processes of the second of two who want the modules of one key, natively."""
    runs = build_natively(tag, "bench_second.py", "gcc-12")
    return [
        Row("compilers run by the second builder of a key", runs["second"], None, 0, f"by the first: {runs['first']}")
    ]


def build_natively(tag: str, script: str, *words: str) -> Any:
    """What a script of harness/guest tells that builds modules in a container with the kernel's headers."""
    kernel = kernels.get(kernels.DEFAULT)
    parts = [path for name in ("src", "lib") for path in (kernel.headers / "usr" / name).iterdir()]
    mounts = {path: f"/{path.relative_to(kernel.headers)}" for path in parts}
    return run_guest(tag, script, kernel.release, *words, mounts=mounts, limit=image.BUILD_LIMIT_S)


def run_guest(
    tag: str,
    script: str,
    *words: str,
    mounts: Mapping[Path, str] | None = None,
    limit: float = image.LOOK_LIMIT_S,
    **options: Any,
) -> Any:
    """What a script of harness/guest tells in a container; `mounts` are further folders, seen read-only."""
    volumes = {**(mounts or {}), GUEST: "/bench"}
    said = containers.output(tag, ["python3", f"/bench/{script}", *words], limit, volumes=read_only(volumes), **options)
    return json.loads(said)


def read_only(mounts: Mapping[Path, str]) -> dict[str, dict[str, str]]:
    """Folders and where a container is to see them, in the words of the Docker SDK."""
    return {str(path): {"bind": place, "mode": "ro"} for path, place in mounts.items()}


def measure_headers(tag: str) -> list[Row]:
    """Bytes that a cold start fetches where its headers come from a repository, natively in a container."""
    rows = []
    for suite in headerfetch.SUITES:
        found = headerfetch.measure(tag, suite)
        what = f"bytes fetched, headers in {suite} : header packages and index"
        note = f"of {found.offered / 1e6:.1f} MB of indexes offered; packages {found.packages / 1e6:.1f} MB"
        rows.append(Row(what, found.fetched, found.needed, 1.2, note))
    return rows


def measure_storm(tag: str) -> list[Row]:
    """CPU seconds that a storm of others' device events takes of the wait, natively: half of them PCI functions'."""
    words = ["python3", "-u", "/bench/bench_storm.py"]
    with containers.started(tag, words, volumes=read_only({GUEST: "/bench"})) as container:
        containers.wait_for(container, "listening", image.LOOK_LIMIT_S)
        make_events()
        time.sleep(SETTLE_S)
        container.kill("SIGTERM")
        said = containers.finish(container, image.LOOK_LIMIT_S)
    told = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    if not told or not told[0]["judged"]:
        raise HarnessError(f"the wait did not hear the storm:\n{said}")
    found = told[0]
    note = f"{found['judged']} of PCI functions; looks at the driver: {found['looks']}, the first one among them"
    return [Row(f"a storm of {EVENTS} device events of others (CPU s)", found["seconds"], None, 0.2, note)]


def make_events() -> None:
    """Have the kernel send events about devices that are not NVIDIA's (Linux, Documentation/ABI/testing/sysfs-uevent).

    Raises HarnessError where /sys cannot be written.
    """
    functions = [path for path in PCI.glob("*") if (path / "vendor").read_text().strip() != "0x10de"]
    devices = [Path("/sys/devices/virtual/mem/null"), *functions[:1]]
    try:
        for number in range(EVENTS):
            (devices[number % len(devices)] / "uevent").write_text("change")
    except OSError as error:
        raise HarnessError(
            f"no device event can be made: {error}", "Run this as root where /sys is writable"
        ) from error


def measure_store(tag: str) -> list[Row]:
    """Wall seconds of a hit in the store, natively in a container, with NVIDIA's real modules."""
    modules = image.real_modules(kernels.get(kernels.DEFAULT).release)
    found = run_guest(tag, "bench_store.py", "/mnt/modules", mounts={modules: "/mnt/modules"})
    what = f"store hit on {found['bytes'] / 1e6:.0f} MB of modules : sha256sum of them (s)"
    return [Row(what, found["ours"], found["bare"], 1.5)]


def measure_life(tag: str) -> list[Row]:
    """Start, stop and idleness in one virtual machine, with NVIDIA's real modules; wall seconds, median."""
    release = kernels.get(kernels.DEFAULT).release
    spec = VmSpec(
        kernel=release,
        shares={"guest": GUEST, "modules": image.real_modules(release)},
        images={"driver": imagefiles.export_rootfs(tag)},
        cpus=2,
        parallel=True,
        timeout=TIMEOUT_S,
    )
    result = vm.run(spec, IN_VM).check()
    seconds: dict[str, list[float]] = defaultdict(list)
    for line in result.output.splitlines():
        if line.startswith('{"what"'):
            found = json.loads(line)
            seconds[found["what"]].append(found["seconds"])
    if len(seconds) != 12:
        raise HarnessError(f"the bench in the guest told {sorted(seconds)}\n{result.report()}")
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    twice = 2 * middle["import"]
    warm = f"bare commands of {middle['checked-up']:.2f} s, and 2 x import of {middle['import']:.2f} s"
    return [
        compare("init to ready : bare commands (s)", middle["ours-up"], middle["bare-up"], twice),
        Row("SIGTERM to exit : bare rmmod and umount (s)", middle["ours-down"], middle["bare-down"], 1.5),
        compare(
            "start after a reboot, store full : the same and sha256sum (s)",
            middle["stored-up"],
            middle["hashed-up"],
            twice,
        ),
        Row("warm start : bare commands and imports (s)", middle["warm-up"], middle["checked-up"] + twice, 1.3, warm),
        Row("lines of the driver in the kernel log of a warm start", middle["operations"], None, 0),
        Row("waiting, modules on disk: wake-ups in 60 s", middle["wake-ups"], None, 6),
        Row("waiting, modules on disk: resident memory (MB)", middle["rss-mb"], None, 40),
    ]


def compare(what: str, ours: float, bare: float, imports: float) -> Row:
    """A start, which may take Python's imports longer than a shell does."""
    return Row(what, ours, bare, 1.3 + imports / bare, f"bar: 1.3, and {imports:.2f} s of imports")


def told_in_vm(tag: str, script: str, unit: str, count: int = 3) -> dict[str, float]:
    """The numbers that a script of harness/guest tells in a virtual machine with the stand-in driver, by name."""
    spec = standin.scenario_spec(imagefiles.export_rootfs(tag), bench=GUEST)
    result = vm.run(replace(spec, cpus=2, parallel=True), f"bash /mnt/bench/{script}").check()
    told = [json.loads(line) for line in result.output.splitlines() if line.startswith('{"what"')]
    found = {number["what"]: number[unit] for number in told}
    if len(found) != count:
        raise HarnessError(f"the bench in the guest told {sorted(found)}\n{result.report()}")
    return found


def measure_cold(tag: str) -> list[Row]:
    """A start that builds the stand-in's modules in a virtual machine, against make and the same start's commands."""
    found = told_in_vm(tag, "bench_cold.sh", "seconds")
    what = "cold start with headers at hand : bare make and commands (s)"
    return [Row(what, found["cold"], found["cold-bare"], 1.1, f"make: {found['cold-make']:.1f} s")]


def measure_idle(tag: str) -> list[Row]:
    """The wait after a start that built the stand-in's modules in a virtual machine, with the store and PREBUILD."""
    found = told_in_vm(tag, "bench_idle.sh", "value")
    note = f"at most {found['most-mb']:.0f} MB before"
    return [
        Row("waiting, after a build: wake-ups in 60 s", found["wake-ups"], None, 6),
        Row("waiting, after a build: resident memory (MB)", found["rss-mb"], None, 40, note),
    ]


def measure_scrape(tag: str) -> list[Row]:
    """Wall seconds of a scrape of the metrics by HTTP, natively in a container."""
    found = run_guest(tag, "bench_scrape.py")
    note = f"the slowest of a hundred: {found['slowest']:.3f} s"
    return [Row("a scrape of the metrics, of a node with 8 GPUs (s)", found["seconds"], None, 0.02, note)]


def measure_metrics(tag: str) -> list[Row]:
    """The wait with metrics switched on, in a virtual machine with the stand-in driver, against that without."""
    found = told_in_vm(tag, "bench_metrics.sh", "value", 4)
    note = f"{found['on-mb']:.1f} MB after 50 scrapes; without: {found['off-mb']:.1f} MB"
    return [
        Row("waiting, metrics on: more resident memory (MB)", found["on-mb"] - found["off-mb"], None, 15, note),
        Row("waiting, metrics on: wake-ups of their threads in 60 s", found["thread-wake-ups"], None, 0),
        Row("waiting, metrics on: wake-ups in 60 s", found["wake-ups"], None, 6),
    ]


def measure_cycles(tag: str) -> list[Row]:
    """Starts and stops on the stand-in driver in one virtual machine; what they leave is checked there, and raises."""
    spec = standin.scenario_spec(imagefiles.export_rootfs(tag))
    result = standin.run_scenario("crash", replace(spec, timeout=CYCLES * 15.0), cases="again", cycles=CYCLES).check()
    found = re.search(rf"^{CYCLES} cycles in (\d+) s", result.output, re.MULTILINE)
    if found is None:
        raise HarnessError(f"the guest told of no cycles\n{result.report()}")
    each = int(found.group(1)) / CYCLES
    return [Row(f"one of {CYCLES} starts and stops that leave nothing (s)", each, None, 10)]


PARTS = {
    "probe": measure_probe,
    "status": measure_status,
    "holders": measure_holders,
    "build": measure_build,
    "signal": measure_signal,
    "second": measure_second,
    "headers": measure_headers,
    "storm": measure_storm,
    "store": measure_store,
    "life": measure_life,
    "cold": measure_cold,
    "idle": measure_idle,
    "scrape": measure_scrape,
    "metrics": measure_metrics,
    "cycles": measure_cycles,
}
