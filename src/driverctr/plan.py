"""(Config, Facts) → Plan: what will be done, in order, and why not otherwise. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

from driverctr import parameters, preflight
from driverctr.addresses import without_credentials
from driverctr.config import Config
from driverctr.depth import Depth
from driverctr.errors import Code, DriverError
from driverctr.explain import remedy_for
from driverctr.facts import holders, modules
from driverctr.modules import Source
from driverctr.modules.loaded import Loaded
from driverctr.preflight import Check, Result
from driverctr.records import asdict, frozen
from driverctr.settings import WhenBusy
from driverctr.survey import Facts, Observation
from driverctr.userspace import tag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SCHEMA = 1
"""Of the document: raised when a field goes or means something else."""


class StepName(StrEnum):
    """The steps, in the order of DESIGN section 1; userspace is one only where that of another version is exported."""

    WITHDRAW = "withdraw"
    MODULES = "modules"
    MODULE_TREE = "module-tree"
    UNLOAD = "unload"
    USERSPACE = "userspace"
    FIRMWARE = "firmware"
    DRIVER_ROOT = "driver-root"
    LOAD = "load"
    DEVICE_NODES = "device-nodes"
    DAEMONS = "daemons"
    VERIFY = "verify"
    PUBLISH = "publish"


KEEP_DIGEST = "keep-digest"
"""How markers are withdrawn where the driver that is loaded stays: what the operator installed is still so."""

NO_PACKAGES = "no-packages"
"""How the module tree is furnished where no packages may be fetched for it."""

UNKNOWN = {
    Source.REMOTE: "whether that folder has them, and they are signed",
    Source.BUILD: "whether headers can be had and the source compiles",
}
"""What only the network or the compiler can tell."""

VERIFIED = {
    Depth.MODULES: "check that the kernel has what is wanted: modules and parameters",
    Depth.DEVICES: "check that the kernel has what is wanted: modules, parameters, device nodes, daemons",
    Depth.SMI: "check that the kernel has what is wanted, and that nvidia-smi lists each GPU",
}
"""What is checked before the driver is called ready."""

NO_WAY_LEFT = "no way to have the modules is left"

IN_THE_KERNEL = (Source.LOADED, Source.LAST_GOOD)
"""Where modules are kept, not had."""

NOTHING_THERE = {
    Source.LOADED: "no driver of ours is loaded",
    Source.STORE: "nothing that fits is in the store",
    Source.ON_DISK: "nothing that fits is on disk",
    Source.LAST_GOOD: "nothing else served before, or it is gone",
}
"""Where the survey found nothing; it may know more of why."""


@frozen
class SetAside:
    """An alternative not taken, and why."""

    alternative: str
    reason: str


@frozen
class PlannedStep:
    """One step: what it does, by which alternative ("" where there is only one way), what was set aside."""

    name: StepName
    what: str
    alternative: str = ""
    alternatives_left: tuple[str, ...] = ()
    set_aside: tuple[SetAside, ...] = ()
    unknown: str = ""

    def why_not(self, alternative: str) -> str:
        """Why an alternative was set aside; "" where it was not."""
        return next((other.reason for other in self.set_aside if other.alternative == alternative), "")


@frozen
class Blocker:
    """What keeps the plan from being carried out as things stand."""

    code: Code
    message: str
    remedy: str


@frozen
class Plan:
    """What `driverctr plan` prints and `init` runs; `pending` is what must wait until nobody uses the driver."""

    wanted: str
    steps: tuple[PlannedStep, ...]
    checks: tuple[Check, ...] = ()
    pending: str = ""

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

    def why_not(self, step: str, alternative: str) -> str:
        """Why an alternative of a step was set aside; "" where it was not."""
        return next((planned.why_not(alternative) for planned in self.steps if planned.name == step), "")

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        blockers = [asdict(blocker) for blocker in self.blockers]
        return {"schema": SCHEMA, **asdict(self), "blockers": blockers, "warnings": list(self.warnings)}


def make(config: Config, facts: Facts, *, build_allowed: bool = True) -> Plan:
    """Decide everything that can be decided from what is known."""
    wish = facts.wish
    wanted = f"driver {wish.driver_version} ({wish.module_type} modules) for kernel {wish.kernel_release}"
    modules_step, modules_check = _plan_modules(config, facts, build_allowed)
    if modules_step.alternative == Source.BUILD and len(modules_step.alternatives_left) > 1:
        hindered = next(filter(preflight.is_refused, preflight.check_room(facts.node.room)), None)
        if hindered:
            modules_step, modules_check = _plan_modules(config, facts, build_allowed, hindered.evidence)
    source = modules_step.alternative
    kept = facts.supply.kept.get(Source(source)) if source else None
    substituted = facts.supply.former.userspace if source == Source.LAST_GOOD and facts.supply.former else None
    version = substituted.driver_version if substituted else wish.driver_version
    judged = preflight.judge(
        config, facts, building=source == Source.BUILD, unloading=kept is None, fetching=build_allowed
    )
    what_markers = "the ready markers" if kept else "the ready markers and the operator's digest"
    steps = (
        PlannedStep(StepName.WITHDRAW, f"remove {what_markers}", KEEP_DIGEST if kept else ""),
        modules_step,
        _plan_tree(facts, kept, build_allowed),
        _plan_unload(facts, kept),
        *([PlannedStep(StepName.USERSPACE, f"put the userspace of {version} in place of ours")] if substituted else []),
        PlannedStep(StepName.FIRMWARE, f"place GSP firmware {version} where the kernel looks for it"),
        PlannedStep(StepName.DRIVER_ROOT, _describe_root(facts)),
        _plan_load(facts, kept),
        PlannedStep(StepName.DEVICE_NODES, "make /dev/nvidia* with the kernel's numbers"),
        PlannedStep(StepName.DAEMONS, "start nvidia-persistenced and watch it, or adopt the one that runs"),
        PlannedStep(StepName.VERIFY, VERIFIED[config.verify_depth]),
        PlannedStep(StepName.PUBLISH, "publish the ready markers, which others wait for"),
    )
    pending = describe_pending(kept.stale, holders.describe(facts.in_use)) if kept and kept.stale else ""
    return Plan(wanted, steps, (*judged, modules_check), pending)


def _plan_modules(config: Config, facts: Facts, build_allowed: bool, hindered: str = "") -> tuple[PlannedStep, Check]:
    """The first place left; `hindered` says why a build could not be, where another place is left."""
    if other := _refuse_kernel(config, facts):
        return PlannedStep(StepName.MODULES, NO_WAY_LEFT), other
    refused = facts.refusals(StepName.MODULES)
    set_aside = {Source(seen.alternative): seen.error.message for seen in refused}
    set_aside = _leave_aside(config, facts, build_allowed) | set_aside
    set_aside |= {Source.BUILD: hindered} if hindered else {}
    doubt = facts.supply.doubt
    left = _in_order(
        (source for source in Source if source not in set_aside),
        doubted=doubt is not None,
        baked=facts.image.kernel_release == facts.wish.kernel_release,
    )
    chosen = left[0] if left else None
    warnings = (doubt.reason,) if doubt and chosen is Source.STORE else ()
    if facts.supply.other_build and chosen is Source.ON_DISK:
        warnings = (facts.supply.other_build,)
    if doubt and chosen is not Source.STORE:
        set_aside.setdefault(Source.STORE, doubt.reason)
    step = PlannedStep(
        StepName.MODULES,
        _describe_source(config, facts, chosen) if chosen else NO_WAY_LEFT,
        chosen or "",
        tuple(left),
        tuple(SetAside(source, set_aside[source]) for source in Source if source in set_aside),
        UNKNOWN.get(chosen, "") if chosen else "",
    )
    if chosen:
        result = Result.UNKNOWN if step.unknown else Result.OK
        evidence = step.what + (f"; unknown: {step.unknown}" if step.unknown else "")
        return step, Check("modules", result, evidence, warnings=(*warnings, *_lacking_parameters(facts, chosen)))
    return step, _refuse_modules(refused, step.set_aside)


def _in_order(sources: Iterable[Source], *, doubted: bool, baked: bool) -> list[Source]:
    """An entry of the store that is `doubted` comes after all else that would give what is wanted.

    What is `baked` into an image for this kernel goes before the store: it may be signed, and it is what was tested.
    """
    last = (Source.STORE, Source.LAST_GOOD) if doubted else (Source.LAST_GOOD,)
    first = (Source.LOADED, Source.ON_DISK) if baked else ()
    return sorted(sources, key=lambda source: (source not in first, last.index(source) if source in last else -1))


def _refuse_kernel(config: Config, facts: Facts) -> Check | None:
    """A precompiled image serves its own kernel; any other only where the user has said so."""
    try:
        tag.check_kernel(facts.image, facts.wish.kernel_release, fallback=config.precompiled_fallback)
    except DriverError as error:
        return Check("modules", Result.REFUSED, error.message, error.code, error.remedy)
    return None


def _lacking_parameters(facts: Facts, source: Source) -> tuple[str, ...]:
    """What the modules that are there lack of our own parameters; of others the step that has them tells."""
    kept, build = facts.supply.kept.get(source), facts.supply.builds.get(source)
    of = kept.build if kept else build
    if of is None:
        return ()
    there = of.module_set
    return tuple(
        sentence
        for name, module in there.modules.items()
        for sentence in parameters.lacking(name, there.driver_version, module.parameters)
        if module.parameters  # the manifest of an older driverctr tells none
    )


def _refuse_modules(refused: Sequence[Observation], set_aside: Sequence[SetAside]) -> Check:
    """No way is left: the refusal that tells most, the latest with a code of its own, and in brief the other places'.

    That the kernel holds no such modules is what brought us here, and no news.
    """
    places = [seen for seen in refused if seen.alternative not in IN_THE_KERNEL] or refused
    telling = [seen for seen in places if seen.error.code is not Code.NO_MODULES] or places
    error, told = telling[-1].error, telling[-1].alternative
    others = [
        f"{other.alternative}: {other.reason}"
        for other in set_aside
        if other.alternative not in (told, *IN_THE_KERNEL) and other.reason != error.message
    ]
    also = f" ({'; '.join(others)})" if others else ""
    return Check("modules", Result.REFUSED, error.message + also, error.code, remedy_for(error))


def _leave_aside(config: Config, facts: Facts, build_allowed: bool) -> dict[Source, str]:
    """Places that have the modules, or could have them, and are not asked all the same."""
    aside: dict[Source, str] = {}
    supply = facts.supply
    if not config.remote_url:
        aside[Source.REMOTE] = "REMOTE_URL is not set"
    elif not config.remote_public_key:
        aside[Source.REMOTE] = "REMOTE_PUBLIC_KEY is not set: nothing that comes from REMOTE_URL could be believed"
    if not build_allowed:
        aside.setdefault(Source.REMOTE, "`load` fetches nothing; `init` does")
        aside[Source.BUILD] = "`load` builds nothing; `init` and `build` do"
    there = {*supply.kept, *supply.builds, *([Source.LAST_GOOD] if supply.good else [])}
    aside |= {source: nothing for source, nothing in NOTHING_THERE.items() if source not in there}
    if supply.good is not None and supply.failed:
        others = [source for source in Source if source is not Source.LAST_GOOD]
        aside |= dict.fromkeys(others, f"what is wanted failed earlier in this boot: {supply.failed}")
    if (kept := supply.kept.get(Source.LOADED)) and kept.stale:
        changes = "; ".join(kept.stale)
        if not facts.in_use:
            aside[Source.LOADED] = f"nobody uses the driver, and it is loaded anew for {changes}"
        elif config.parameters_when_busy is WhenBusy.REFUSE:
            aside[Source.LOADED] = f"PARAMETERS_WHEN_BUSY=refuse, and it would have to be loaded anew for {changes}"
    return aside


def _describe_source(config: Config, facts: Facts, source: Source) -> str:
    release = facts.wish.kernel_release
    return {
        Source.LOADED: "keep the modules that are loaded: they are the ones wanted",
        Source.STORE: "take the modules from the store",
        Source.ON_DISK: f"take the modules on disk ({config.modules_dir}/{release})",
        Source.REMOTE: f"fetch the modules from {without_credentials(config.remote_url)}",
        Source.BUILD: f"build the modules from the image's source for {release}",
        Source.LAST_GOOD: "take the modules that served last, with their parameters",
    }[source]


def _plan_tree(facts: Facts, kept: Loaded | None, build_allowed: bool) -> PlannedStep:
    name, alternative = StepName.MODULE_TREE, "" if build_allowed else NO_PACKAGES
    if kept and not kept.missing:
        return PlannedStep(name, "nothing: all modules are loaded", alternative)
    what = "put the modules, and the host's that they need, where modprobe finds them"
    if facts.host_lacks and not facts.host_modules and build_allowed:
        lacks = ", ".join(facts.host_lacks)
        return PlannedStep(name, f"{what}; fetch packages with {lacks}", unknown="whether packages can be had")
    return PlannedStep(name, what, alternative)


def _plan_unload(facts: Facts, kept: Loaded | None) -> PlannedStep:
    if kept:
        users = f"; {holders.describe(facts.in_use)}" if facts.in_use else ""
        return PlannedStep(StepName.UNLOAD, f"nothing: what is loaded stays{users}")
    if not facts.stack:
        return PlannedStep(StepName.UNLOAD, "nothing: no module of the driver is loaded")
    loaded = ", ".join(f"{module.name} {module.version}".strip() for module in facts.stack.values())
    return PlannedStep(StepName.UNLOAD, f"unload {loaded}")


def _plan_load(facts: Facts, kept: Loaded | None) -> PlannedStep:
    names = (*(kept.missing if kept else facts.to_load), *(name for name in facts.beside if _absent(facts, name)))
    return PlannedStep(StepName.LOAD, f"load {', '.join(names)}" if names else "nothing: all modules are loaded")


def _absent(facts: Facts, name: str) -> bool:
    return modules.kernel_name(name) not in facts.stack


def describe_pending(stale: Sequence[str], in_use: str) -> str:
    """Which parameters wait until the driver is idle, and for whom; one sentence for plan, log and status."""
    return f"pending reload: {'; '.join(stale)}; {in_use}"


def _describe_root(facts: Facts) -> str:
    layers = len(facts.driver_root.layers)
    instead = f", in place of {layers} mounted there" if layers else ""
    return f"export our root, with the driver's programs and libraries, at /run/nvidia/driver{instead}"
