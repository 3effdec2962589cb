"""Where things lie on a node, below a root that tests may move."""

from pathlib import Path

from driverctr.records import frozen

FEATURES_DIR = "/etc/kubernetes/node-feature-discovery/features.d"
"""Where Node Feature Discovery takes labels from, as its own deployments mount it."""

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs lie, for who was given no PATH."""


@frozen
class Paths:
    """Every path of the contract (DESIGN section 4), as properties of one root.

    Where we look at a container from outside of it (`vantage`), its root is one that a process has, and `mounts` the
    mount table of that process. `beside` is the root that /run/nvidia lies in where it does not lie in ours: the driver
    root has all of the container but that.
    """

    root: Path = Path("/")
    mounts: Path | None = None
    beside: Path | None = None

    @property
    def run(self) -> Path:
        """The folder shared with the host and NVIDIA's neighbours."""
        return (self.beside or self.root) / "run/nvidia"

    @property
    def driver_root(self) -> Path:
        """Where our root appears to the host."""
        return self.run / "driver"

    @property
    def pid_file(self) -> Path:
        """The lock."""
        return self.run / "nvidia-driver.pid"

    @property
    def own_run(self) -> Path:
        """What only driverctr reads."""
        return self.run / "driverctr"

    @property
    def status_file(self) -> Path:
        """The status document."""
        return self.own_run / "status.json"

    @property
    def user_settings(self) -> Path:
        """The user's files: `<module>.conf` and others (NVIDIA's /drivers)."""
        return self.root / "drivers"

    @property
    def modprobe_d(self) -> Path:
        """modprobe's configuration."""
        return self.root / "etc/modprobe.d"

    @property
    def sys_modules(self) -> Path:
        """Loaded modules."""
        return self.root / "sys/module"

    @property
    def proc(self) -> Path:
        """procfs."""
        return self.root / "proc"

    @property
    def dev(self) -> Path:
        """Device nodes."""
        return self.root / "dev"

    @property
    def kernel_log(self) -> Path:
        """The kernel log, one record a read."""
        return self.root / "dev/kmsg"

    @property
    def pci_devices(self) -> Path:
        """PCI functions."""
        return self.root / "sys/bus/pci/devices"

    @property
    def termination_log(self) -> Path:
        """Where Kubernetes reads why a container ended."""
        return self.root / "dev/termination-log"

    @property
    def former_userspace(self) -> Path:
        """Where another version's userspace is put together, beside where the driver root is."""
        return self.root / "mnt/driverctr/former"

    @property
    def kernel_hook(self) -> Path:
        """What the host's package manager runs after it installed a kernel, if the user mounted its folder."""
        return self.root / "run/kernel/postinst.d/update-nvidia-driver"

    def modules_tree(self, kernel_release: str) -> Path:
        """The module tree modprobe reads for a kernel release."""
        return self.root / "lib/modules" / kernel_release

    def are_elsewhere(self) -> bool:
        """Whether we look from outside of the container."""
        return self.mounts is not None or self.beside is not None
