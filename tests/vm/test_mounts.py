"""The driver root, the pid lock and the firmware folder under real container runtimes, as the host sees them."""

from pathlib import Path

import pytest

from harness import apt, cache, proc, vm, vmhost
from harness.vm import VmSpec

REPOSITORY = Path(__file__).resolve().parents[2]
GUEST = Path(__file__).parent / "guest"
PACKAGES = ("mount", "python3")
FIRMWARE = "lib/firmware/nvidia/999.99.99/gsp_test.bin"

pytestmark = pytest.mark.vm


def small_root() -> Path:
    """A Debian that has Python, `root` for podman and `root.tar` for docker, with what the image must hide."""
    sources = apt.sources()
    return cache.entry("mounts-root", [sources, *PACKAGES, *vmhost.LEFT_OUT], lambda to: _make(to, sources))


def _make(to: Path, sources: str) -> None:
    (to / "sources.list").write_text(sources)
    options = ["--quiet", "--mode=root", "--variant=essential", "--aptopt=Acquire::Languages none"]
    options += [f"--dpkgopt=path-exclude=/{pattern}" for pattern in vmhost.LEFT_OUT]
    options += ["--aptopt=APT::Install-Recommends false", f"--include={','.join(PACKAGES)}"]
    root = to / "root"
    proc.run(["mmdebstrap", *options, apt.SUITE, root, to / "sources.list"], timeout=1800)
    for name in (FIRMWARE, "drivers/nvidia.conf", "run/secrets/token"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"of the image: {name}\n")
    proc.run(["tar", "-C", root, "-cf", to / "root.tar", "."])


@pytest.mark.parametrize(
    ("kernel", "runtime"),
    [("6.1", "podman-crun"), ("6.1", "podman-runc"), ("6.1", "docker"), ("6.12", "podman-crun"), ("6.12", "docker")],
)
def test_driver_root(kernel: str, runtime: str) -> None:
    """One tree, never a gap, no secret, nothing left: whatever was there before."""
    made = small_root()
    spec = VmSpec(
        kernel=kernel,
        gpu=None,
        shares={"src": REPOSITORY / "src", "guest": GUEST, "root": made},
        images={"small": made / "root"},
        cpus=2,  # who looks and who swaps must run at the same time
    )
    vm.run(spec, f"exec python3 -u /mnt/guest/mounts.py {runtime}").check()
