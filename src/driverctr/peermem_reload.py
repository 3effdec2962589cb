"""The sidecar `nvidia-driver reload_nvidia_peermem`: wait for both drivers, load the module, stay."""

from driverctr import parameters
from driverctr.config import Config
from driverctr.errors import Code, DriverError
from driverctr.facts import modules
from driverctr.paths import Paths
from driverctr.run import Runner
from driverctr.signals import Signals

LOOK_EVERY = 2.0
"""Seconds between looks: the markers lie on mounts whose events inotify does not bring."""


def run(paths: Paths, config: Config, runner: Runner, signals: Signals) -> None:
    """Wait, load, stay until a signal raises Stopped; raises DriverError (load-failed)."""
    signals.install()
    while reason := waiting_for(paths, config.host_mofed):
        runner.log.info(f"waiting for {reason}")
        while waiting_for(paths, config.host_mofed) == reason:
            signals.sleep(LOOK_EVERY)
    if modules.read(paths, "nvidia_peermem") is None:
        _load(paths, runner)
    runner.log.info("nvidia-peermem is loaded; waiting for a signal")
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
    return ""


def _load(paths: Paths, runner: Runner) -> None:
    """modprobe of the driver root, which has the modules; parameters on the command line, as the reference does."""
    words = ["chroot", str(paths.driver_root), "modprobe", "nvidia-peermem"]
    result = runner.run([*words, *parameters.user_words(paths, "nvidia-peermem")], limit=120, check=False)
    if result.status != 0 or modules.read(paths, "nvidia_peermem") is None:
        raise DriverError(
            Code.LOAD_FAILED,
            f"nvidia-peermem could not be loaded: {result.words}",
            "It needs the symbols of MOFED's ib_core, and modules built where MOFED's headers were visible",
        )
