"""The sidecar `nvidia-driver reload_nvidia_peermem`: wait for both drivers, load the module, stay."""

import time

from driverctr import parameters
from driverctr.config import Config
from driverctr.errors import Code, DriverError
from driverctr.explain import EXPLANATIONS
from driverctr.facts import modules, tasks
from driverctr.kmod import Kmod
from driverctr.paths import Paths
from driverctr.signals import Signals

NAME = "nvidia_peermem"
LOOK_EVERY = 2.0
"""Seconds between looks: the markers lie on mounts whose events inotify does not bring."""


def run(paths: Paths, config: Config, kmod: Kmod, signals: Signals) -> None:
    """Wait, load, stay until a signal raises Stopped; raises DriverError (stuck, and what the kernel's words mean)."""
    signals.install()
    while reason := waiting_for(paths, config.host_mofed):
        kmod.log.info(f"waiting for {reason}")
        deadline = time.monotonic() + config.load_timeout
        while waiting_for(paths, config.host_mofed) == reason:
            if time.monotonic() >= deadline:
                _refuse_unsettled(paths)
            signals.sleep(LOOK_EVERY)
    if modules.read(paths, NAME) is None:
        with signals.held():
            _load(paths, kmod, config.load_timeout)
    kmod.log.info("nvidia-peermem is loaded; waiting for a signal")
    while True:
        signals.sleep(None)


def waiting_for(paths: Paths, host_mofed: bool) -> str:
    """What is not there yet, or ""."""
    if host_mofed and not (paths.sys_modules / "mlx5_core").is_dir():
        return "the host's mlx5_core (USE_HOST_MOFED=true)"
    if not host_mofed and not (paths.root / "run/mellanox/drivers/.driver-ready").exists():
        return "MOFED's container (/run/mellanox/drivers/.driver-ready)"
    if not (paths.run / "validations/.driver-ctr-ready").exists():
        return "the driver container (/run/nvidia/validations/.driver-ctr-ready)"
    module = modules.read(paths, NAME)
    if module is not None and modules.unsettled({NAME: module}):
        return f"the end of a load or unload of nvidia-peermem that somebody else began (initstate {module.state})"
    return ""


def _refuse_unsettled(paths: Paths) -> None:
    """Raise DriverError (stuck) if it is the module itself that neither comes nor goes; the drivers may take longer."""
    module = modules.read(paths, NAME)
    if module is not None and (unsettled := modules.unsettled({NAME: module})):
        told = tasks.describe_stuck(unsettled, tasks.hanging_module_tools(paths))
        raise DriverError(Code.STUCK, told, EXPLANATIONS[Code.STUCK].remedy)


def _load(paths: Paths, kmod: Kmod, limit: float) -> None:
    """modprobe of the driver root, which has the modules; parameters on the command line, as the reference does."""
    kmod.load_below(paths.driver_root, "nvidia-peermem", parameters.user_words(paths, "nvidia-peermem"), limit)
    if modules.read(paths, NAME) is None:
        raise DriverError(
            Code.LOAD_FAILED,
            "modprobe nvidia-peermem ended well, but the module is not loaded",
            "It needs the symbols of MOFED's ib_core, and modules built where MOFED's headers were visible",
        )
