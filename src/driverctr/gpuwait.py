"""Wait until an NVIDIA GPU is on the PCI bus: asleep until the kernel tells of one, nothing is polled."""

from driverctr.facts import events, gpus
from driverctr.paths import Paths
from driverctr.signals import Signals


def wait_for_gpu(paths: Paths, signals: Signals) -> None:
    """Return once there is one; raises Stopped at a signal, DriverError where the kernel's events cannot be heard."""
    with events.listening() as heard:
        while not gpus.read(paths):
            signals.sleep(None, heard.fileno())
            heard.read()
