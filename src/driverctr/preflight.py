"""The checks that init, plan and doctor share: Facts → ok, refused or unknown, with evidence and remedy. Pure."""

from collections.abc import Callable, Sequence
from enum import StrEnum

from driverctr.config import Config
from driverctr.daemons import DAEMONS
from driverctr.errors import Code
from driverctr.explain import EXPLANATIONS
from driverctr.facts import holders
from driverctr.facts.gpus import Gpu
from driverctr.facts.supported import Support
from driverctr.facts.tasks import describe_stuck
from driverctr.mounts.driverroot import SHARE_IT
from driverctr.node import Room
from driverctr.records import frozen
from driverctr.settings import NoGpu
from driverctr.survey import Facts

SHOW_THE_TREE = "Run the container with --pid=host (hostPID), or with -v /lib/modules:/lib/modules:ro"
FIND_IT = "Install the host's package that has it (linux-modules-extra-*, kernel-modules-core), or load it on the host"
BE_PRIVILEGED = "Run the container with --privileged (Kubernetes: securityContext.privileged)"

FABRIC_MANAGER = "nv-fabricmanager"
"""Its program; a program that lies in the image and is not started by us makes no fabric."""

DISTRIBUTION = "distribution"
"""The check of whose the host is, which `plan` begins with."""

BUILD_DISK = 1_000_000_000
"""Bytes a build takes for headers, a copy of the source, and objects (measured with 535: 0.9 GB)."""
BUILD_MEMORY = 400_000_000
"""Bytes the final link of nvidia.ko takes, which no smaller number of jobs makes less (measured with 535)."""


class Result(StrEnum):
    """How a check came out."""

    OK = "ok"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@frozen
class Check:
    """One check: what was found; where it is refused, the code and what to do; what is wrong and yet no refusal."""

    name: str
    result: Result
    evidence: str
    code: Code | None = None
    remedy: str = ""
    warnings: tuple[str, ...] = ()


def judge(
    config: Config, facts: Facts, *, building: bool, unloading: bool = True, fetching: bool = True
) -> tuple[Check, ...]:
    """Every check, in the order in which a refusal counts.

    `building`: the plan is to build modules; `unloading`: what is loaded is to go, and nobody may use it; `fetching`:
    packages may be fetched.
    """
    checks = [check(config, facts) for check in CHECKS]
    checks += [
        check_host_modules(facts, loading=unloading, fetching=fetching),
        check_in_use(facts, unloading=unloading),
        check_rollback(facts, unloading=unloading),
    ]
    if building:
        checks += check_room(facts.node.room)
    return tuple(checks)


def is_refused(check: Check) -> bool:
    """For filters."""
    return check.result is Result.REFUSED


def check_privilege(config: Config, facts: Facts) -> Check:
    """Whether the kernel lets us do what we are here for."""
    name, found = "privilege", facts.node.privilege
    if found.missing is None:
        return _unknown(name, "/proc/self/status does not tell our capabilities")
    if found.missing:
        return _refused(name, Code.NO_PRIVILEGE, "missing capabilities: " + ", ".join(found.missing), BE_PRIVILEGED)
    if found.in_user_namespace:
        return _refused(
            name,
            Code.NO_PRIVILEGE,
            "our capabilities count in a user namespace of our own only",
            "Run the container as the host's root, without user namespaces (rootless engines have them)",
        )
    return _ok(name, "every capability needed is there")


def check_run_folder(config: Config, facts: Facts) -> Check:
    """Whether the host will see the driver root."""
    name, unshared = "run-folder", facts.driver_root.unshared
    return _refused(name, Code.NOT_SHARED, unshared, SHARE_IT) if unshared else _ok(name, "shared with the host")


def check_kernel_calls(config: Config, facts: Facts) -> Check:
    """What an old kernel makes worse."""
    name, lacks = "system-calls", facts.node.lacks
    if lacks:
        return _ok(name, "those the kernel lacks have a substitute", f"the kernel lacks {'; '.join(lacks)}")
    return _ok(name, "the kernel has those we use")


def check_distribution(config: Config, facts: Facts) -> Check:
    """Whose the host is, and, where headers have to come from packages, why this image's cannot have them."""
    name, host, room = DISTRIBUTION, facts.node.host, facts.node.room
    mismatch = room.mismatch if room and not room.headers else ""
    warnings = (f"no headers can come from this image's repositories: {mismatch}",) if mismatch else ()
    if host is None:
        where = "run with --pid=host (hostPID), or mount its os-release at /host-etc/os-release"
        return _unknown(name, f"the host's is not to be seen: {where}", *warnings)
    return _ok(name, f"the host is {host}", *warnings)


def check_settled(config: Config, facts: Facts) -> Check:
    """Whether a module hangs between loaded and not: nothing can be done with it, nor beside it."""
    name = "settled"
    if facts.unsettled:
        stuck = describe_stuck(facts.unsettled, facts.hanging)
        return _refused(name, Code.STUCK, stuck, EXPLANATIONS[Code.STUCK].remedy)
    return _ok(name, "no load or unload of the driver hangs")


def check_module_support(config: Config, facts: Facts) -> Check:
    """Whether the kernel loads modules at all."""
    name, rules = "module-support", facts.node.loading
    if not rules.supported:
        return _refused(
            name,
            Code.NO_MODULE_SUPPORT,
            "the kernel has no /proc/modules: it was built without module support",
            "Boot a kernel with CONFIG_MODULES",
        )
    if rules.disabled:
        return _refused(
            name,
            Code.NO_MODULE_SUPPORT,
            "kernel.modules_disabled is 1: no module can be loaded or unloaded until the next boot",
            "Keep the host from setting it (/etc/sysctl.d), and reboot",
        )
    return _ok(name, "the kernel loads modules")


def check_signatures(config: Config, facts: Facts) -> Check:
    """Whether the kernel wants signatures that our modules do not have; whose key it trusts only the load can tell."""
    name, rules = "signatures", facts.node.loading
    why = "module.sig_enforce is set" if rules.enforced else f"lockdown is {rules.lockdown}"
    if rules.signed_only and not facts.node.modules_signed:
        return _refused(
            name,
            Code.SIGNATURE_NEEDED,
            f"{why}: the kernel loads signed modules only; ours have no signature, and this image cannot sign",
            "Use modules that were signed with a key the host trusts, or switch off what asks for it "
            "(Secure Boot, lockdown=, module.sig_enforce=)",
        )
    if rules.signed_only:
        return _unknown(name, f"{why}; our modules are signed, but whether the kernel trusts the key only a load tells")
    if not rules.lockdown:
        return _unknown(name, "module.sig_enforce is not set; lockdown cannot be seen from here (no securityfs)")
    return _ok(name, "the kernel asks for no signatures")


def check_host_driver(config: Config, facts: Facts) -> Check:
    """Whether the host has a driver of its own, which ours must not fight with."""
    name, found = "host-driver", facts.node.host_driver
    remedy = "Remove the driver from the host, or do not run a driver container on it"
    if not found.visible:
        return _unknown(name, "the host's root cannot be seen from here (no host pid namespace)")
    if found.smi:
        return _refused(name, Code.HOST_DRIVER, f"a driver is installed on the host itself: {found.smi}", remedy)
    if facts.node.host_module_loaded:
        return _refused(name, Code.HOST_DRIVER, f"the module loaded is the host's own: {found.module}", remedy)
    if facts.node.host_module_loaded is None:
        return _unknown(name, f"whether the module loaded is the host's own: {found.module} does not tell its build")
    if found.module:
        warning = f"the host has a driver module of its own, {found.module}: it may be loaded at the next boot"
        return _ok(name, "no driver of the host's is in use", warning)
    return _ok(name, "the host has no driver of its own")


def check_gpu(config: Config, facts: Facts) -> Check:
    """Whether there is a GPU, and whether the plan is to wait for one."""
    name = "gpu"
    if facts.gpus:
        return _ok(name, ", ".join(map(str, facts.gpus)))
    if config.no_gpu is NoGpu.WAIT:
        return _unknown(name, "no NVIDIA GPU on the PCI bus: we wait for one to be plugged in (NO_GPU=wait)")
    return _refused(
        name,
        Code.NO_GPU,
        "no NVIDIA GPU on the PCI bus",
        "Put the container on a node with a GPU, or set NO_GPU=wait to wait until one is plugged in",
    )


def check_gpu_free(config: Config, facts: Facts) -> Check:
    """Whether a GPU is left that no other driver has; what is bound to vfio-pci belongs to a virtual machine."""
    name, taken = "gpu-free", [gpu for gpu in facts.gpus if gpu.taken_by]
    told = [f"{gpu} is taken by {gpu.taken_by}" for gpu in taken]
    if taken and len(taken) == len(facts.gpus):
        return _refused(name, Code.GPU_TAKEN, "; ".join(told), _how_to_free(taken))
    return _ok(name, "bound to no other driver" if facts.gpus else "no GPU to ask about", *told)


def check_gpu_support(config: Config, facts: Facts) -> Check:
    """Whether the driver release drives the GPUs with the module type wanted: refused if it drives none of them."""
    name, version, wanted = "gpu-support", facts.wish.driver_version, facts.wish.module_type
    free = [gpu for gpu in facts.gpus if not gpu.taken_by]
    if not free:
        return _ok(name, "no GPU to ask about")
    support = facts.node.support
    if support is None:
        return _unknown(name, "the image has no list of the GPUs that its driver supports")
    refusals = [(gpu, support[gpu.address]) for gpu in free if not support[gpu.address].drives(wanted)]
    told = [why_not(gpu, seen, version, wanted) for gpu, seen in refusals]
    if len(refusals) == len(free):
        code, remedy = _what_instead(refusals[0][1], wanted)
        return _refused(name, code, "; ".join(told), remedy)
    driven = [gpu for gpu in free if support[gpu.address].drives(wanted)]
    unlisted = [gpu for gpu in driven if support[gpu.address].types is None]
    if len(unlisted) == len(driven):
        return _unknown(name, f"not in the list of driver {version}: " + ", ".join(map(str, unlisted)), *told)
    names = [f"{gpu} {support[gpu.address].name or 'not in the list'}" for gpu in driven]
    return _ok(name, f"driven by {wanted} {version}: " + ", ".join(names), *told)


def why_not(gpu: Gpu, seen: Support, version: str, module_type: str) -> str:
    """Why a GPU is not driven, for a sentence."""
    name = f"{gpu} {seen.name}".strip()
    if seen.legacy:
        return f"{name} is a legacy GPU: driver branch {seen.legacy} drives it, {version} does not"
    if seen.too_new:
        return f"{name} is newer than driver {version}, which does not know it"
    return f"{name} does not work with the {module_type} modules of {version}"


def check_fabric(config: Config, facts: Facts) -> Check:
    """Whether the node has a fabric that somebody must manage before a GPU can be used."""
    name, found = "fabric", facts.node.fabric
    parts = [f"NVSwitch at {address}" for address in found.switches]
    parts += [f"NVLink 5 managed through {device}" for device in found.nvlink5]
    if parts and FABRIC_MANAGER not in {daemon.name for daemon in DAEMONS}:
        return _refused(
            name,
            Code.FABRIC_MANAGER_MISSING,
            f"{', '.join(parts)}, and we start no fabric manager, without which no GPU here can be used",
            "Use a driver container that runs the fabric manager on this node: driverctr does not yet",
        )
    return _ok(name, ", ".join(parts) if parts else "no NVSwitch and no NVLink 5")


def check_host_modules(facts: Facts, *, loading: bool, fetching: bool) -> Check:
    """Whether the host's modules that ours need can be had, if ours are to be loaded."""
    name, lacking = "host-modules", describe_lacking(facts.host_lacks)
    if facts.host_modules:
        return _ok(name, "the host's module tree can be seen")
    if facts.host_lacks and loading and fetching:
        return _unknown(name, f"{lacking}: packages with it are asked for, and whether they can be had is not known")
    if facts.host_lacks and loading:
        return _refused(name, Code.LOAD_FAILED, lacking, SHOW_THE_TREE)
    return _unknown(name, "the host's module tree cannot be seen: what ours need of it must be loaded already")


def describe_lacking(names: Sequence[str], *, visible: bool = False) -> str:
    """Which of the host's modules ours need, and where they are not."""
    tree = "it is not in the host's module tree" if visible else "the host's module tree is not visible"
    return f"our modules need {', '.join(names)} of the host's kernel, which is not loaded, and {tree}"


def check_in_use(facts: Facts, *, unloading: bool) -> Check:
    """Whether a loaded driver can be unloaded, if it must be."""
    name = "in-use"
    if facts.in_use and not unloading:
        return _ok(name, f"{holders.describe(facts.in_use)}: it stays as it is")
    if facts.in_use:
        return _refused(name, Code.IN_USE, holders.describe(facts.in_use), holders.remedy(facts.in_use))
    return _ok(name, "nobody uses the driver" if facts.stack else "no module of the driver is loaded")


def check_rollback(facts: Facts, *, unloading: bool) -> Check:
    """Whether what served before could return; that it cannot is known before it is unloaded, and refuses nothing."""
    name, former = "rollback", facts.supply.former
    if former is None or not unloading:
        return _ok(name, "nothing that served is to give way")
    if former.record is not None:
        return _ok(name, f"{former.record.build.describe()} served last, and returns if what is wanted does not load")
    impossible = f"if {facts.wish.driver_version} does not load, rollback is impossible: {former.lacks}"
    return _ok(name, "what served last cannot return", impossible)


def check_room(room: Room | None) -> list[Check]:
    """What a build asks of the node, wherever and for whichever kernel it runs."""
    return [check_disk(room), check_memory(room), check_headers(room)]


def check_disk(room: Room | None) -> Check:
    """Whether a build has room on disk."""
    name = "build-disk"
    if room is None:
        return _unknown(name, "not looked at: modules were at hand")
    if room.disk is None:
        return _unknown(name, f"{room.scratch} does not tell how much is free")
    free = f"{room.disk / 1e9:.1f} GB free in {room.scratch}"
    if room.disk < BUILD_DISK:
        return _refused(
            name,
            Code.NO_SPACE,
            f"{free}, and a build takes {BUILD_DISK / 1e9:.1f} GB",
            f"Free space there, or mount a folder with space at {room.scratch}",
        )
    return _ok(name, free)


def check_memory(room: Room | None) -> Check:
    """Whether a build has memory."""
    name = "build-memory"
    if room is None:
        return _unknown(name, "not looked at: modules were at hand")
    free = f"{room.memory / 1e6:.0f} MB of memory"
    if room.memory < BUILD_MEMORY:
        return _refused(
            name,
            Code.NO_MEMORY,
            f"{free}, and a build takes {BUILD_MEMORY / 1e6:.0f} MB",
            "Raise the container's memory limit, or give it modules built before",
        )
    return _ok(name, free)


def check_headers(room: Room | None) -> Check:
    """Where a build would have headers from."""
    name = "headers"
    if room is not None and room.headers:
        return _ok(name, room.headers)
    return _unknown(name, "not on the host: whether the package sources have them, only the network can tell")


CHECKS: tuple[Callable[[Config, Facts], Check], ...] = (
    check_privilege,
    check_settled,
    check_run_folder,
    check_module_support,
    check_signatures,
    check_host_driver,
    check_gpu,
    check_gpu_free,
    check_gpu_support,
    check_fabric,
    check_distribution,
    check_kernel_calls,
)


def _how_to_free(taken: list[Gpu]) -> str:
    if any(gpu.taken_by == "nouveau" for gpu in taken):
        return "Unload nouveau on the host, and boot it with modprobe.blacklist=nouveau; then start again"
    return "Unbind it on the host (echo ADDRESS > /sys/bus/pci/devices/ADDRESS/driver/unbind), then start again"


def _what_instead(seen: Support, module_type: str) -> tuple[Code, str]:
    if seen.legacy:
        return Code.GPU_LEGACY, f"Use an image with a driver of branch {seen.legacy}"
    if seen.too_new:
        return Code.GPU_TOO_NEW, "Use an image with a newer driver"
    other = "proprietary" if module_type == "open" else "open"
    return Code.WRONG_MODULE_TYPE, f"Set KERNEL_MODULE_TYPE={other}, or leave it at auto"


def _ok(name: str, evidence: str, *warnings: str) -> Check:
    return Check(name, Result.OK, evidence, warnings=warnings)


def _unknown(name: str, evidence: str, *warnings: str) -> Check:
    return Check(name, Result.UNKNOWN, evidence, warnings=warnings)


def _refused(name: str, code: Code, evidence: str, remedy: str) -> Check:
    return Check(name, Result.REFUSED, evidence, code, remedy)
