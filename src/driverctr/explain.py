"""What each code means and what to do about it: one table, shown by `driverctr explain` and in docs/errors.md."""

from collections.abc import Mapping
from dataclasses import dataclass

from driverctr.errors import BUG_EXIT_STATUS, Code


@dataclass(frozen=True)
class Explanation:
    """One row: what a code means, whether trying again can help, and the remedy."""

    meaning: str
    remedy: str
    retryable: bool = False


EXPLANATIONS: Mapping[Code, Explanation] = {
    Code.BAD_USAGE: Explanation(
        "Unknown verb, flag or kernel release.",
        "See `driverctr --help`.",
    ),
    Code.BAD_SETTING: Explanation(
        "A variable or a file of settings has a value that is not valid; the message names it and what is valid.",
        "Set the value named in the message, or leave it out.",
    ),
    Code.ALREADY_RUNNING: Explanation(
        "Another driver container holds the lock; the message names it.",
        "Stop it first, or leave it be: one node needs one driver container.",
        retryable=True,
    ),
    Code.NO_PRIVILEGE: Explanation(
        "A capability is missing; the message names it.",
        "Run the container with --privileged (Kubernetes: securityContext.privileged).",
    ),
    Code.IN_USE: Explanation(
        "The driver is in use; the message names module, refcnt and process. At the stop: the driver stays.",
        "Stop what uses the GPU (on Kubernetes: drain the node), then start again.",
        retryable=True,
    ),
    Code.NOT_SHARED: Explanation(
        "/run/nvidia is not a folder shared with the host, so nobody would see the driver root.",
        "`-v /run/nvidia:/run/nvidia:rshared`; in Kubernetes `mountPropagation: Bidirectional`.",
    ),
    Code.NO_MODULE_SUPPORT: Explanation(
        "The kernel cannot load modules.",
        "Boot a kernel with CONFIG_MODULES, and without kernel.modules_disabled=1.",
    ),
    Code.SIGNATURE_NEEDED: Explanation(
        "The kernel loads signed modules only, and there is no signer.",
        "Use an image with signed modules, or switch Secure Boot (lockdown, module.sig_enforce) off.",
    ),
    Code.NO_MODULES: Explanation(
        "No way to have the modules is left; the message says why each was refused.",
        "Give modules built before, or a source that builds.",
    ),
    Code.HEADERS_MISSING: Explanation(
        "Kernel headers were not found; every place looked at is named.",
        "Install them on the host and show them to the container, or give it package sources that have them.",
        retryable=True,
    ),
    Code.COMPILER_MISSING: Explanation(
        "The compiler the kernel was built with is not in the image.",
        "Put it into the image.",
    ),
    Code.BUILD_FAILED: Explanation(
        "The source did not compile; the message has the first error with file and line, and the log.",
        "See the log; a driver release that knows this kernel, or a patch.",
    ),
    Code.PACKAGES_FAILED: Explanation(
        "The package tool failed; its own words are in the message.",
        "Check package sources, proxy and network.",
        retryable=True,
    ),
    Code.NO_SPACE: Explanation(
        "A file system is full, or would be before the build ends.",
        "Free the space the message asks for.",
        retryable=True,
    ),
    Code.NO_MEMORY: Explanation(
        "Memory is too little for a build, or a module found none.",
        "Raise the container's memory limit, or lower --max-threads.",
        retryable=True,
    ),
    Code.NO_GPU: Explanation(
        "The node has no NVIDIA GPU.",
        "Set NO_GPU=wait to wait for one, or do not schedule the container here.",
    ),
    Code.GPU_LEGACY: Explanation(
        "The GPU needs an older driver branch, which the message names.",
        "Use an image of that branch.",
    ),
    Code.GPU_TOO_NEW: Explanation(
        "This driver release does not know the GPU yet.",
        "Use an image with a newer driver.",
    ),
    Code.LOAD_FAILED: Explanation(
        "A module could not be loaded, for a reason without a code of its own.",
        "See the kernel's words in the message.",
        retryable=True,
    ),
    Code.UNLOAD_FAILED: Explanation(
        "A module could not be unloaded.",
        "See the kernel's words in the message.",
        retryable=True,
    ),
    Code.MOUNT_FAILED: Explanation(
        "The driver root could not be published or withdrawn.",
        "See the message.",
        retryable=True,
    ),
    Code.FIRMWARE_FAILED: Explanation(
        "The GSP firmware could not be placed where the kernel looks for it.",
        "See the message.",
    ),
    Code.DEVICE_NODES_FAILED: Explanation(
        "A device node could not be made.",
        "Run the container with --privileged.",
    ),
    Code.DAEMON_FAILED: Explanation(
        "A daemon of the driver did not start; its reason from syslog is in the message.",
        "See its own words in the log.",
        retryable=True,
    ),
    Code.WRONG_MODULE_TYPE: Explanation(
        "The GPU works with the other module type only.",
        "Set KERNEL_MODULE_TYPE as the message says.",
    ),
    Code.GPU_TAKEN: Explanation(
        "Every GPU is bound to another driver (vfio-pci, nouveau).",
        "Unbind it, or keep nouveau from loading (modprobe.blacklist=nouveau), then start again.",
    ),
    Code.HOST_DRIVER: Explanation(
        "A driver is installed on the host itself.",
        "Remove it from the host, or do not run a driver container here.",
    ),
    Code.FABRIC_MANAGER_MISSING: Explanation(
        "The node has NVSwitches or NVLink 5, and the image has no fabric manager.",
        "Use an image with the fabric manager.",
    ),
    Code.NOT_READY: Explanation(
        "The kernel's truth differs from what was placed; everything that differs is named.",
        "A restart of the container loads it anew.",
        retryable=True,
    ),
    Code.GPU_INIT_FAILED: Explanation(
        "The driver is loaded, but GPUs that were asked for do not answer nvidia-smi.",
        "Look for the NVRM and Xid lines in the message: the GPU, its power, its firmware or its slot.",
        retryable=True,
    ),
    Code.NODE_FILE: Explanation(
        "A file of the node cannot be read or written.",
        "See the message.",
    ),
    Code.COMMAND_FAILED: Explanation(
        "A program is missing, failed or took too long.",
        "See the message.",
        retryable=True,
    ),
    Code.GPU_LOST: Explanation(
        "A GPU that served has vanished from the bus.",
        "Look at the GPU, its power and its slot; restart the container when it is back.",
        retryable=True,
    ),
    Code.STUCK: Explanation(
        "A module's load or unload hangs in the kernel, where nothing can end it.",
        "Reboot the node.",
    ),
    Code.NO_DEVICE: Explanation(
        "The module found no device that it drives.",
        "See the kernel's words in the message.",
    ),
    Code.UNKNOWN_SYMBOL: Explanation(
        "The module needs a symbol that the kernel, or a module it depends on, does not have.",
        "Build the modules for this kernel, and with the headers of the MOFED in use.",
    ),
    Code.WRONG_KERNEL: Explanation(
        "The module was built for another kernel.",
        "Build it for the running one.",
    ),
    Code.KEY_REJECTED: Explanation(
        "The kernel does not trust the module's signature.",
        "Sign the modules with a key enrolled on the host (MOK), or switch Secure Boot off.",
    ),
    Code.BAD_PARAMETER: Explanation(
        "A module parameter is unknown, or has a value the module refuses.",
        "Correct /drivers/<module>.conf as the message says.",
    ),
    Code.OTHER_VERSION: Explanation(
        "Modules of another driver version are loaded, and userspace does not match them.",
        "Unload them, or use an image of their version.",
    ),
    Code.WRONG_ARCHITECTURE: Explanation(
        "A file is for another processor architecture.",
        "Use an image for the node's architecture.",
    ),
}


def markdown() -> str:
    """The page docs/errors.md."""
    lines = [
        "# Exit statuses and codes",
        "",
        "Generated from `src/driverctr/explain.py`. `driverctr explain CODE` prints one of them.",
        "",
        "| status | code | meaning | remedy | again |",
        "|---|---|---|---|---|",
    ]
    for code, row in EXPLANATIONS.items():
        again = "may help" if row.retryable else "no"
        lines.append(f"| {code.exit_status} | `{code.value}` | {row.meaning} | {row.remedy} | {again} |")
    lines += [
        f"| {BUG_EXIT_STATUS} | | A bug in driverctr, with its traceback in the log. | Report it. | no |",
        "| 128 + n | | Signal n before the driver was ready; all is undone. A third signal: nothing more is. | | |",
        "",
    ]
    return "\n".join(lines)
