"""An unload and time: who uses the driver for a moment, and what a stop leaves no time for."""

import contextlib
import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from driverctr.errors import Code, DriverError, Stopped
from driverctr.facts.modules import LoadedModule
from driverctr.log import Log
from driverctr.modules import ModuleSet, describe
from driverctr.modules import loaded as modules_loaded
from driverctr.modules.loaded import Build, Record
from driverctr.plan import PlannedStep, StepName
from driverctr.signals import Signals
from driverctr.steps import Gained, Tools, unload
from tests.unit.conftest import FakeBin, make_tree
from tests.unit.good_node import facts
from tests.unit.module_files import write_module
from tests.unit.test_processes import signals
from tests.unit.test_unload import FakeDaemons, fake_daemons, somebody_comes, tools

__all__ = ["fake_daemons", "signals", "tools"]


@pytest.mark.parametrize(("left", "count"), [(4.0, 1), (20.0, 2)], ids=["no time", "haste"])
def test_where_a_stop_leaves_no_time_what_went_is_not_loaded_again(
    tools: Tools, fake_daemons: FakeDaemons, fake_bin: FakeBin, log: Log, left: float, count: int
) -> None:
    somebody_comes(fake_bin, tools.paths, stays=True)
    tools.signals.arrived_at, tools.signals.count = time.monotonic() - tools.budget.seconds + left, count
    with pytest.raises(DriverError) as refused:
        unload.free(tools)
    assert refused.value.code is Code.IN_USE and not [call for call in fake_bin.calls if "modprobe" in call]
    assert "nvidia_uvm is unloaded and not loaded again" in log.stream.getvalue()  # type: ignore[attr-defined]  # a StringIO


def test_what_was_loaded_beside_is_restored_with_the_users_words(
    tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = tools.paths
    file = write_module(tmp_path / "nvidia-peermem.ko", "6.1.0-1-amd64", build_id=b"\xc0\xff\xee\x11")
    make_tree(
        paths.root,
        {"proc/sys/kernel/random/boot_id": "boot-1", "drivers/nvidia-peermem.conf": "peerdirect_support=1\n"},
    )
    module_set = ModuleSet(tmp_path, "6.1.0-1-amd64", "", "535.1", "open", {"nvidia-peermem": describe(file)})
    modules_loaded.write(paths, Record(Build(module_set), {}))
    monkeypatch.setattr(unload, "furnish", lambda *_: ())
    unload._restore(tools, LoadedModule("nvidia_peermem", "535.1", "", "c0ffee11", "live", 0, ()))
    assert (paths.modprobe_d / "nvidia-peermem.conf").read_text() == "options nvidia-peermem peerdirect_support=1\n"


def test_of_a_stack_that_is_gone_the_record_goes_too(tools: Tools) -> None:
    record = tools.paths.own_run / modules_loaded.RECORD
    shutil.rmtree(tools.paths.sys_modules)
    make_tree(record.parent, {record.name: "{}"})
    unload.unload_modules(tools)
    assert not record.exists()


@pytest.mark.parametrize("goes", [True, False])
def test_a_start_waits_for_who_uses_the_driver_for_a_moment(
    tools: Tools, fake_daemons: FakeDaemons, fake_bin: FakeBin, monkeypatch: pytest.MonkeyPatch, goes: bool
) -> None:
    """A probe that begins between the look at the node and the unload."""
    monkeypatch.setattr(unload, "BUSY_WAIT", 30.0 if goes else 0.3)
    monkeypatch.setattr(unload, "BUSY_PAUSE", 0.05)
    refcnt = tools.paths.sys_modules / "nvidia/refcnt"
    free = shutil.copy(refcnt, tools.paths.root / "refcnt")
    refcnt.write_text("3\n")
    if goes:
        threading.Timer(0.5, os.replace, (free, refcnt)).start()
    planned = PlannedStep(StepName.UNLOAD, "")
    with contextlib.nullcontext() if goes else pytest.raises(DriverError, match="nvidia has refcnt 3"):
        unload.Unload().apply(tools, planned, facts(), Gained())
    assert fake_daemons.told == (["stop 7"] if goes else [])


def test_a_signal_ends_the_wait_of_a_start_for_who_uses_the_driver(tools: Tools, signals: Signals) -> None:
    (tools.paths.sys_modules / "nvidia/refcnt").write_text("3\n")
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    began = time.monotonic()
    with pytest.raises(Stopped):
        unload.wait_until_free(replace(tools, signals=signals))
    assert time.monotonic() - began < 2
