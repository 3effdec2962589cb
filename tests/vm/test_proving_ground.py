"""The proving ground itself: how a run ended is told truly, and what it emulates is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness import vm
from harness.errors import HarnessError
from harness.vm import Outcome, Share, VmSpec

GUEST = Path(__file__).parent / "guest"
REPOSITORY = Path(__file__).resolve().parents[2]
HALF_A_MINUTE_MS = 30_000
BARE = VmSpec(gpu=None, headers=False, timeout=300)

pytestmark = pytest.mark.vm


def test_success_brings_back_output_and_files(tmp_path: Path) -> None:
    spec = VmSpec(gpu=None, shares={"out": Share(tmp_path, writable=True)}, timeout=300)
    result = vm.run(spec, "echo from the guest >&2; seq 20000; echo kept >/mnt/out/file; sleep 1000 & true").check()
    assert (result.outcome, result.exit_status) == (Outcome.PASSED, 0)
    lines = result.output.splitlines()
    assert lines[0] == "from the guest"
    assert lines[1:] == [str(n) for n in range(1, 20001)], "output must arrive whole, though a daemon holds the pipe"
    assert (tmp_path / "file").read_text() == "kept\n"


def test_failure_is_the_guests_own_status() -> None:
    result = vm.run(BARE, "exit 7")
    assert (result.outcome, result.exit_status) == (Outcome.FAILED, 7)
    with pytest.raises(HarnessError, match=r"python3 -m harness vm --kernel 6.1 .*--script"):
        result.check()


def test_hang_fails() -> None:
    result = vm.run(VmSpec(gpu=None, headers=False, timeout=30), "echo before; sleep 10000")
    assert (result.outcome, result.exit_status) == (Outcome.HUNG, None)
    assert "before" in result.report()


def test_panic_fails() -> None:
    result = vm.run(BARE, "echo c >/proc/sysrq-trigger")
    assert (result.outcome, result.exit_status) == (Outcome.PANICKED, None)
    assert "sysrq" in result.report()


def test_power_off_without_a_status_fails() -> None:
    result = vm.run(BARE, "echo o >/proc/sysrq-trigger; sleep 1000")
    assert (result.outcome, result.exit_status) == (Outcome.NO_STATUS, None)


def test_status_file_without_the_guests_bell_fails() -> None:
    result = vm.run(BARE, "echo 0 >/run/vm-host/job/status; echo o >/proc/sysrq-trigger; sleep 1000")
    assert (result.outcome, result.exit_status) == (Outcome.NO_STATUS, None)


def test_command_line_returns_the_commands_status_and_output() -> None:
    argv = [sys.executable, "-m", "harness", "vm", "--gpu", "none", "--no-headers", "--timeout", "300", "--"]
    done = subprocess.run(
        [*argv, "bash", "-c", "ls /usr/src; echo 'two  words'; exit 3"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (3, "two  words\n"), done.stderr


@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
def test_emulated_gpu_and_stand_in(kernel: str) -> None:
    spec = VmSpec(kernel=kernel, shares={"guest": GUEST}, timeout=400)
    result = vm.run(spec, "uname -r; bash /mnt/guest/proving_ground.sh").check()
    assert result.output.startswith(f"{kernel}.")
    assert result.output.endswith("done\n")


def test_stand_in_builds_in_the_guest() -> None:
    """In half a minute where nothing else runs; here other machines do, so that three times as much is allowed."""
    spec = VmSpec(shares={"source": REPOSITORY / "images/stand-in"}, cpus=2, parallel=True, timeout=600)
    script = """
        set -e
        cp -r /mnt/source /tmp/build
        began=${EPOCHREALTIME/./}
        make -s -C /tmp/build -j"$(nproc)" KERNEL_UNAME="$(uname -r)" IGNORE_CC_MISMATCH=1 modules
        echo "built in $(((${EPOCHREALTIME/./} - began) / 1000)) ms"
        insmod /tmp/build/nvidia.ko
        insmod /tmp/build/nvidia-uvm.ko
    """
    said = vm.run(spec, script, live=True).check().output
    took = re.search(r"^built in (\d+) ms$", said, re.MULTILINE)
    assert took is not None
    assert int(took.group(1)) < 5 * HALF_A_MINUTE_MS
