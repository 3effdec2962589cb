"""(Config, Facts) → Plan: what will be done, in order, and why not otherwise. Pure."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from driverctr.config import Config
from driverctr.errors import Code
from driverctr.survey import Facts

STOP_THE_USERS = "Stop what uses the GPU (on Kubernetes: drain the node), then start again"


class StepName(StrEnum):
    """The steps, in the order of DESIGN section 1."""

    WITHDRAW = "withdraw"
    MODULES = "modules"
    UNLOAD = "unload"
    FIRMWARE = "firmware"
    DRIVER_ROOT = "driver-root"
    LOAD = "load"
    DEVICE_NODES = "device-nodes"
    DAEMONS = "daemons"
    VERIFY = "verify"
    PUBLISH = "publish"


class Source(StrEnum):
    """Where modules can come from, in the order they are tried."""

    ON_DISK = "on-disk"
    BUILD = "build"


@dataclass(frozen=True)
class SetAside:
    """An alternative not taken, and why."""

    alternative: str
    reason: str


@dataclass(frozen=True)
class PlannedStep:
    """One step: what it does, by which alternative ("" where there is only one way), what was set aside."""

    name: StepName
    what: str
    alternative: str = ""
    alternatives_left: tuple[str, ...] = ()
    set_aside: tuple[SetAside, ...] = ()
    unknown: str = ""


@dataclass(frozen=True)
class Blocker:
    """What keeps the plan from being carried out as things stand."""

    code: Code
    message: str
    remedy: str


@dataclass(frozen=True)
class Plan:
    """What `driverctr plan` prints and `init` runs."""

    wanted: str
    steps: tuple[PlannedStep, ...]
    blockers: tuple[Blocker, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"schema": 1, **asdict(self)}


def make(config: Config, facts: Facts, *, build_allowed: bool = True) -> Plan:
    """Decide everything that can be decided from what is known."""
    wish = facts.wish
    wanted = f"driver {wish.driver_version} ({wish.module_type} modules) for kernel {wish.kernel_release}"
    modules_step, blockers = _plan_modules(config, facts, build_allowed)
    if facts.in_use:
        users = "; ".join(map(str, facts.in_use))
        blockers += (Blocker(Code.IN_USE, f"the driver is in use: {users}", STOP_THE_USERS),)
    steps = (
        PlannedStep(StepName.WITHDRAW, "remove the ready markers and the operator's digest"),
        modules_step,
        _plan_unload(facts),
        PlannedStep(StepName.FIRMWARE, f"GSP firmware {wish.driver_version} in /lib/firmware; search path if blank"),
        PlannedStep(StepName.DRIVER_ROOT, _describe_root(facts)),
        PlannedStep(StepName.LOAD, "load " + ", ".join(modules_to_load(config, facts))),
        PlannedStep(StepName.DEVICE_NODES, "make /dev/nvidia* with the kernel's numbers"),
        PlannedStep(StepName.DAEMONS, "start nvidia-persistenced and watch it"),
        PlannedStep(StepName.VERIFY, f"check the kernel's truth to depth {config.verify_depth.value}"),
        PlannedStep(StepName.PUBLISH, "publish the ready markers"),
    )
    return Plan(wanted, steps, blockers)


def modules_to_load(config: Config, facts: Facts) -> tuple[str, ...]:
    """Our modules, in the order they are loaded; peermem only where RDMA is asked for and a Mellanox NIC is there."""
    peermem = ("nvidia-peermem",) if config.rdma and facts.mellanox else ()
    return ("nvidia", "nvidia-uvm", "nvidia-modeset", *peermem)


def _plan_modules(config: Config, facts: Facts, build_allowed: bool) -> tuple[PlannedStep, tuple[Blocker, ...]]:
    refused = facts.refusals(StepName.MODULES)
    set_aside = [SetAside(seen.alternative, seen.error.message) for seen in refused]
    left = [source.value for source in Source if source.value not in {seen.alternative for seen in refused}]
    if not build_allowed and Source.BUILD in left:
        left.remove(Source.BUILD)
        set_aside.append(SetAside(Source.BUILD, "`load` builds nothing; `init` and `build` do"))
    release = facts.wish.kernel_release
    what = {
        Source.ON_DISK: f"take the modules on disk ({config.modules_dir}/{release})",
        Source.BUILD: f"build the modules from the image's source for {release}",
    }
    chosen = left[0] if left else ""
    step = PlannedStep(
        StepName.MODULES,
        what[Source(chosen)] if chosen else "no way to have the modules is left",
        chosen,
        tuple(left),
        tuple(set_aside),
        "whether headers can be had and the source compiles" if chosen == Source.BUILD else "",
    )
    if chosen:
        return step, ()
    last = refused[-1].error
    return step, (Blocker(last.code, last.message, last.remedy),)


def _plan_unload(facts: Facts) -> PlannedStep:
    if not facts.stack:
        return PlannedStep(StepName.UNLOAD, "nothing: no module of the driver is loaded")
    loaded = ", ".join(f"{module.name} {module.version}".strip() for module in facts.stack.values())
    return PlannedStep(StepName.UNLOAD, f"unload {loaded}")


def _describe_root(facts: Facts) -> str:
    layers = len(facts.driver_root.layers)
    return "export our root at /run/nvidia/driver" + (f", in place of {layers} mounted there" if layers else "")
