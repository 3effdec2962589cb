"""A node with one GPU and nothing wrong, to change one thing of."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from driverctr.facts.fabric import Fabric
from driverctr.facts.gpus import Gpu
from driverctr.facts.hostdriver import HostDriver
from driverctr.facts.loading import Loading
from driverctr.facts.osrelease import OsRelease
from driverctr.facts.privilege import Privilege
from driverctr.facts.supported import Support
from driverctr.modules import ModuleSet, Source, Wish
from driverctr.modules.loaded import Build
from driverctr.modules.supply import Supply
from driverctr.mounts.rootstate import RootState
from driverctr.node import Node, Room
from driverctr.survey import Facts
from driverctr.userspace.image import Image
from driverctr.versions import DriverVersion

A100 = Gpu("0001:01:00.0", 0x20B0, "")
BOTH = frozenset(("open", "proprietary"))

GOOD_NODE = Node(
    privilege=Privilege(missing=(), in_user_namespace=False),
    loading=Loading(supported=True, disabled=False, enforced=False, lockdown="none"),
    support={A100.address: Support("NVIDIA A100-SXM4-40GB", types=BOTH)},
    fabric=Fabric((), ()),
    host_driver=HostDriver(visible=True),
    host_module_loaded=False,
    room=Room(Path("/var/tmp"), disk=9 * 10**9, memory=4 * 10**9, headers="process 1's root: /usr/src/linux"),
    modules_signed=False,
    host=OsRelease("debian", "12", name="Debian GNU/Linux 12 (bookworm)"),
)


ON_DISK = ModuleSet(
    Path("/opt/driverctr/modules/6.1.0-56-amd64/535.309.01-proprietary"),
    "6.1.0-56-amd64",
    "",
    "535.309.01",
    "proprietary",
    {},
)


def facts(**changes: Any) -> Facts:
    """A node with nothing loaded."""
    plain = Facts(
        image=Image(DriverVersion("535.309.01"), (), "debian", "x86_64"),
        wish=Wish("6.1.0-56-amd64", "535.309.01", "proprietary"),
        gpus=(A100,),
        stack={},
        running=(),
        holders=(),
        driver_root=RootState((), False, ()),
        host_modules=True,
        node=GOOD_NODE,
        supply=Supply(builds={Source.ON_DISK: Build(ON_DISK)}),
        to_load=("nvidia", "nvidia-uvm", "nvidia-modeset"),
    )
    return replace(plain, **changes)


def node(**changes: Any) -> Facts:
    """A node with nothing loaded, and something changed that preflight judges."""
    return facts(node=replace(GOOD_NODE, **changes))
