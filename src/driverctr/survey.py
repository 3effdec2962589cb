"""Everything the plan needs to know, looked at once, changing nothing."""

from collections.abc import Mapping, Sequence

from driverctr import daemons, moduletree, node, parameters, wishes
from driverctr.config import Config
from driverctr.daemons import Running
from driverctr.errors import Code, DriverError
from driverctr.facts import gpus, holders, kernel, modules, processes, supported, tasks
from driverctr.facts.gpus import Gpu
from driverctr.facts.holders import Holder, InUse
from driverctr.facts.hostroot import HostRoot, Reach
from driverctr.facts.modules import LoadedModule
from driverctr.facts.tasks import Task
from driverctr.modules import PEERMEM, ModuleSet, Source, Wish, needed_of_host
from driverctr.modules.supply import Search, Supply
from driverctr.mounts import rootstate
from driverctr.mounts.rootstate import RootState
from driverctr.node import Node
from driverctr.paths import Paths
from driverctr.records import frozen
from driverctr.userspace import image
from driverctr.userspace.image import Image

TO_LOAD = ("nvidia", "nvidia-uvm", "nvidia-modeset")
"""Our modules, in the order they are loaded."""

DEBIAN_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}
"""How `dpkg --print-architecture` calls what uname(1) calls a machine."""


@frozen
class Observation:
    """An alternative that was tried, or looked at, and cannot be used."""

    step: str
    alternative: str
    error: DriverError


@frozen
class Facts:
    """What is true of this node and this image, and what was learned since.

    `to_load` are our modules in the order they are loaded, `beside` those asked for that a driver serves without,
    `host_lacks` the host's modules that those at hand need and that are nowhere on the node, as far as it can be seen.
    """

    image: Image
    wish: Wish
    gpus: tuple[Gpu, ...]
    stack: Mapping[str, LoadedModule]
    running: tuple[Running, ...]
    holders: tuple[Holder, ...]
    driver_root: RootState
    host_modules: bool
    node: Node
    supply: Supply
    to_load: tuple[str, ...]
    beside: tuple[str, ...] = ()
    host_lacks: tuple[str, ...] = ()
    observations: tuple[Observation, ...] = ()
    blind: str = ""
    hanging: tuple[Task, ...] = ()

    @property
    def unsettled(self) -> tuple[LoadedModule, ...]:
        """Modules whose load or unload has not ended: nothing can be done with them, nor beside them."""
        return modules.unsettled(self.stack)

    @property
    def in_use(self) -> tuple[InUse, ...]:
        """Loaded modules that somebody other than our own daemons uses."""
        return holders.in_use(self.stack, self.holders, [running.identity for running in self.running], self.blind)

    def refusals(self, step: str) -> tuple[Observation, ...]:
        """What was set aside for a step."""
        return tuple(observation for observation in self.observations if observation.step == step)


def check_architecture(described: Image, machine: str) -> None:
    """Refuse an image of another processor, which emulation may start; raises DriverError (wrong-architecture)."""
    wanted = DEBIAN_NAMES.get(machine, machine)
    if described.architecture not in (wanted, machine):
        raise DriverError(
            Code.WRONG_ARCHITECTURE,
            f"this image is for {described.architecture}, the node is {machine}",
            f"Use the image for {machine}",
        )


def modules_beside(config: Config, *, mellanox: bool) -> tuple[str, ...]:
    """Peermem where RDMA is asked for and a Mellanox NIC is there (reference A.2, GPU_DIRECT_RDMA_ENABLED)."""
    return (PEERMEM,) if config.rdma and mellanox else ()


def find_lacking(paths: Paths, found: ModuleSet, names: Sequence[str]) -> tuple[str, ...]:
    """The host's modules that a set names, neither loaded nor built in nor in our own tree.

    The host's own tree is not looked at: what is in there is in ours once that is furnished.
    """
    release = found.kernel_release
    try:
        needed = needed_of_host(found, names)
    except DriverError:  # told where they are to be used
        return ()
    lacking = [name for name in needed if not modules.is_available(paths, name)]
    if not lacking:
        return ()
    there = {modules.kernel_name(file.name.partition(".")[0]) for file in paths.modules_tree(release).rglob("*.ko*")}
    there |= kernel.builtin_modules(release, (HostRoot(paths.root, Reach.OWN),))
    return tuple(name for name in lacking if modules.kernel_name(name) not in there)


def survey(paths: Paths, config: Config) -> Facts:
    """Look at the node; raises DriverError where the wish itself makes no sense here."""
    described = image.read(paths.root)
    running_kernel = kernel.read(paths.root)
    check_architecture(described, running_kernel.architecture)
    for module in (*TO_LOAD, PEERMEM):
        parameters.user_words(paths, module)
    seen = gpus.read(paths)
    support = supported.of_gpus(paths, seen)
    wish = wishes.make_wish(config, described, running_kernel.release, support)
    stack: Mapping[str, LoadedModule] = modules.read_stack(paths)
    supply = Search(paths, config, described, wish, running_kernel, stack, TO_LOAD).look()
    sure = [source for source in supply.builds if not (supply.doubt and source is Source.STORE)]
    found = supply.builds[sure[0]].module_set if sure else None
    host_modules = moduletree.host_place(paths, wish.kernel_release) is not None
    running = daemons.find_all(paths)
    stack, users = holders.settled(paths, [daemon.identity for daemon in running], stack)
    return Facts(
        image=described,
        wish=wish,
        gpus=seen,
        stack=stack,
        running=running,
        holders=users,
        driver_root=rootstate.read(paths),
        host_modules=host_modules,
        node=node.read(paths, wish, support, stack.get(modules.CORE), found),
        supply=supply,
        to_load=TO_LOAD,
        beside=modules_beside(config, mellanox=gpus.have_mellanox(paths)),
        host_lacks=find_lacking(paths, found, TO_LOAD) if found and not host_modules else (),
        observations=tuple(Observation("modules", source, error) for source, error in supply.refusals.items()),
        blind=processes.blindness(paths),
        hanging=tasks.hanging_module_tools(paths) if modules.unsettled(stack) else (),
    )
