"""(Config, Facts) → Plan: what will be done, in order, and why not otherwise. Pure."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from driverctr import preflight
from driverctr.config import Config
from driverctr.errors import Code
from driverctr.preflight import Check, Result
from driverctr.survey import Facts


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
    checks: tuple[Check, ...] = ()

    @property
    def blockers(self) -> tuple[Blocker, ...]:
        """What the checks refuse, the weightiest first."""
        return tuple(
            Blocker(check.code, check.evidence, check.remedy) for check in self.checks if check.code is not None
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with the node and yet keeps nothing from being done."""
        return tuple(warning for check in self.checks for warning in check.warnings)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        blockers = [asdict(blocker) for blocker in self.blockers]
        return {"schema": 1, **asdict(self), "blockers": blockers, "warnings": list(self.warnings)}


def make(config: Config, facts: Facts, *, build_allowed: bool = True) -> Plan:
    """Decide everything that can be decided from what is known."""
    wish = facts.wish
    wanted = f"driver {wish.driver_version} ({wish.module_type} modules) for kernel {wish.kernel_release}"
    modules_step, modules_check = _plan_modules(config, facts, build_allowed)
    building = modules_step.alternative == Source.BUILD
    checks = (*preflight.judge(config, facts, building=building), modules_check)
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
    return Plan(wanted, steps, checks)


def modules_to_load(config: Config, facts: Facts) -> tuple[str, ...]:
    """Our modules, in the order they are loaded; peermem only where RDMA is asked for and a Mellanox NIC is there."""
    peermem = ("nvidia-peermem",) if config.rdma and facts.mellanox else ()
    return ("nvidia", "nvidia-uvm", "nvidia-modeset", *peermem)


def _plan_modules(config: Config, facts: Facts, build_allowed: bool) -> tuple[PlannedStep, Check]:
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
        result = Result.UNKNOWN if step.unknown else Result.OK
        return step, Check("modules", result, step.what + (f"; unknown: {step.unknown}" if step.unknown else ""))
    last = refused[-1].error
    return step, Check("modules", Result.REFUSED, last.message, last.code, last.remedy)


def _plan_unload(facts: Facts) -> PlannedStep:
    if not facts.stack:
        return PlannedStep(StepName.UNLOAD, "nothing: no module of the driver is loaded")
    loaded = ", ".join(f"{module.name} {module.version}".strip() for module in facts.stack.values())
    return PlannedStep(StepName.UNLOAD, f"unload {loaded}")


def _describe_root(facts: Facts) -> str:
    layers = len(facts.driver_root.layers)
    return "export our root at /run/nvidia/driver" + (f", in place of {layers} mounted there" if layers else "")
