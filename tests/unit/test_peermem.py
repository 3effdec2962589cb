"""The sidecar that loads nvidia-peermem: what it waits for, what it calls, and why a load failed."""

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from driverctr import config as settings
from driverctr import peermem_reload
from driverctr.errors import Code, DriverError, Stopped
from driverctr.facts import tasks
from driverctr.kmod import Kmod
from driverctr.log import Log
from driverctr.paths import Paths
from driverctr.signals import Budget, Signals
from tests.unit.conftest import FakeBin, make_tree
from tests.unit.test_processes import send_after, signals

__all__ = ["signals"]

MOFED = "run/mellanox/drivers/.driver-ready"
OURS = "run/nvidia/validations/.driver-ctr-ready"
PARAMETER = "peerdirect_support=1\n"
CONFIG = settings.load({})


@pytest.fixture
def sidecar(paths: Paths, fake_bin: FakeBin, log: Log, signals: Signals) -> Callable[[], None]:
    """As the verb runs it, on a node where both drivers are ready."""
    make_tree(
        paths.root, {MOFED: "", OURS: "", "dev/kmsg": "", "drivers/nvidia-peermem.conf": "peerdirect_support=1\n"}
    )
    kmod = Kmod(fake_bin.environment, log, paths, Budget(signals, 4).wait)
    return lambda: peermem_reload.run(paths, CONFIG, kmod, signals)


def test_what_is_not_there_yet_is_named(paths: Paths) -> None:
    assert "mlx5_core" in peermem_reload.waiting_for(paths, host_mofed=True)
    assert "MOFED's container" in peermem_reload.waiting_for(paths, host_mofed=False)
    make_tree(paths.root, {MOFED: "", "sys/module/mlx5_core/refcnt": "0\n"})
    for host_mofed in (True, False):
        assert "driver container" in peermem_reload.waiting_for(paths, host_mofed)
    make_tree(paths.root, {OURS: "", "sys/module/nvidia_peermem/refcnt": "0\n"})
    assert peermem_reload.waiting_for(paths, host_mofed=False) == ""
    make_tree(paths.root, {"sys/module/nvidia_peermem/initstate": "coming\n"})
    assert "initstate coming" in peermem_reload.waiting_for(paths, host_mofed=False)


def test_it_waits_loads_with_the_driver_roots_modprobe_and_stays(
    sidecar: Callable[[], None], paths: Paths, fake_bin: FakeBin, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peermem_reload, "LOOK_EVERY", 0.05)
    (paths.root / OURS).unlink()
    module = paths.sys_modules / "nvidia_peermem"
    fake_bin.add("chroot", f"/bin/mkdir -p {module}; echo 0 > {module}/refcnt")
    threading.Timer(0.3, (paths.root / OURS).touch).start()
    send_after(2, signal.SIGTERM)
    with pytest.raises(Stopped):
        sidecar()
    assert fake_bin.calls == [f"chroot {paths.driver_root} modprobe nvidia-peermem peerdirect_support=1"]
    said = log.stream.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert said.count("waiting for the driver container") == 1 and "nvidia-peermem is loaded" in said


def test_what_is_loaded_is_not_loaded_again(sidecar: Callable[[], None], paths: Paths, fake_bin: FakeBin) -> None:
    make_tree(paths.root, {"sys/module/nvidia_peermem/refcnt": "0\n", "sys/module/nvidia_peermem/initstate": "live\n"})
    send_after(0.5, signal.SIGTERM)
    with pytest.raises(Stopped):
        sidecar()
    assert fake_bin.calls == []


@pytest.mark.parametrize("state", ["coming", "going"])
def test_a_load_or_unload_of_somebody_else_that_does_not_end_is_stuck(
    paths: Paths, fake_bin: FakeBin, signals: Signals, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.setattr(peermem_reload, "LOOK_EVERY", 0.05)
    here = "sys/module/nvidia_peermem"
    make_tree(paths.root, {MOFED: "", OURS: "", f"{here}/refcnt": "0\n", f"{here}/initstate": f"{state}\n"})
    make_tree(paths.root, {"proc": None})
    rescue = threading.Timer(5, os.kill, (os.getpid(), signal.SIGTERM))
    rescue.start()
    began = time.monotonic()
    with pytest.raises(DriverError, match="of nvidia_peermem has not ended") as failed:
        peermem_reload.run(paths, replace(CONFIG, load_timeout=0.5), Kmod(fake_bin.environment), signals)
    rescue.cancel()
    assert failed.value.code is Code.STUCK and 0.5 <= time.monotonic() - began < 5


def test_a_driver_that_is_long_in_coming_is_waited_for(
    paths: Paths, fake_bin: FakeBin, signals: Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peermem_reload, "LOOK_EVERY", 0.05)
    send_after(1, signal.SIGTERM)
    with pytest.raises(Stopped):
        peermem_reload.run(paths, replace(CONFIG, load_timeout=0.1), Kmod(fake_bin.environment), signals)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("nvidia-peermem nv_mem_client_init:551 ERROR module compiled without IB peer memory symbols present",
         Code.UNKNOWN_SYMBOL),
        ("nvidia_peermem: disagrees about version of symbol ib_register_peer_memory_client", Code.UNKNOWN_SYMBOL),
        ("nvidia_peermem: no symbol version for nvidia_p2p_get_pages", Code.OTHER_VERSION),
        ("mlx5_core: something of its own", Code.LOAD_FAILED),
    ],
)  # fmt: skip
def test_a_load_that_fails_is_told_by_the_kernels_words(
    sidecar: Callable[[], None], paths: Paths, fake_bin: FakeBin, line: str, code: Code
) -> None:
    fake_bin.add("chroot", f'echo "3,8,2000,-;{line}" >>{paths.kernel_log}; echo "could not insert" >&2; exit 1')
    with pytest.raises(DriverError, match=r"modprobe nvidia-peermem .*failed: .*could not insert") as failed:
        sidecar()
    assert failed.value.code is code and (line in failed.value.message) is not line.startswith("mlx5")


def test_a_load_that_does_nothing_is_no_load(sidecar: Callable[[], None], fake_bin: FakeBin) -> None:
    fake_bin.add("chroot")
    with pytest.raises(DriverError, match="the module is not loaded") as failed:
        sidecar()
    assert failed.value.code is Code.LOAD_FAILED


def test_a_load_that_hangs_in_the_kernel_is_stuck_and_a_signal_does_not_wait_for_it(
    sidecar: Callable[[], None], fake_bin: FakeBin, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_bin.add("chroot", "exec /bin/sleep 60")
    killed: list[int] = []
    monkeypatch.setattr("driverctr.kmod.KILL_LIMIT", 0.1)
    monkeypatch.setattr(tasks, "read", lambda paths, pid: tasks.Task(pid, "modprobe", "D", "", ("peermem_init",)))
    send_after(1, signal.SIGTERM)
    began = time.monotonic()
    try:
        with monkeypatch.context() as deaf:
            deaf.setattr(os, "killpg", lambda group, number: killed.append(group))
            with pytest.raises(DriverError, match=r"no signal ends it: .*peermem_init") as failed:
                sidecar()
    finally:
        for group in killed:
            os.killpg(group, signal.SIGKILL)
    assert failed.value.code is Code.STUCK and time.monotonic() - began < 8
