"""What each code means, by which words it is known, what to do about it: one table.

`driverctr explain` and docs/failures.md show it; diagnose.py reads the kernel's and the tools' words by it, from the
first row to the last: the more telling ones come first.
"""

from collections.abc import Mapping

from driverctr.errors import Code, DriverError
from driverctr.records import frozen

OF_NVIDIA = r"nv(?:idia_|[A-Z_])"
"""How the symbols begin that NVIDIA's modules offer each other (nvUvmInterface..., nvidia_register_module)."""


@frozen
class Sign:
    """Words of the kernel or of a tool that mean a code, and what to tell: `says`, with the pattern's named groups.

    `of_tool` marks what only the tool says of its act: the text of an errno in the kernel log is about something else.
    """

    pattern: str
    says: str
    of_tool: bool = False


@frozen
class Explanation:
    """One row: what a code means, whether trying again can help, the remedy, and the signs of it."""

    meaning: str
    remedy: str
    retryable: bool = False
    signs: tuple[Sign, ...] = ()


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
        signs=(Sign(r"Operation not permitted", "it is not permitted", of_tool=True),),
    ),
    Code.IN_USE: Explanation(
        "The driver is in use; the message names module, refcnt and process. At the stop: the driver stays.",
        "Stop what uses the GPU: `driverctr who` names everybody and what ends each (on Kubernetes: drain the node).",
        retryable=True,
        signs=(
            Sign(
                r"Module (?P<module>\S+) is in use by: (?P<holders>.+)", "{module} is held by {holders}", of_tool=True
            ),
            Sign(r"Module (?P<module>\S+) is in use\b", "{module} is in use", of_tool=True),
            Sign(r"Resource temporarily unavailable", "it is in use", of_tool=True),
        ),
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
    Code.STORE_UNUSABLE: Explanation(
        "The module store, or a file to be imported into it, cannot be used as it is; a start goes on without it.",
        "Give STORE_DIR a folder of root's that nobody else can write, on a filesystem with locks and renames.",
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
        "Use a driver release that knows this kernel, or an image with a patch; the log of the build has the rest.",
    ),
    Code.PACKAGES_FAILED: Explanation(
        "The package tool failed; its own words are in the message.",
        "Check package sources, proxy and network.",
        retryable=True,
    ),
    Code.PACKAGES_UNTRUSTED: Explanation(
        "A package or the index of a repository is not signed, not by a key that is trusted here, or past its date; "
        "nothing of it was used.",
        "Give the container the key of who signs it, as the message says; set the node's clock.",
    ),
    Code.NO_SPACE: Explanation(
        "A file system is full, or would be before the build ends.",
        "Free the space the message asks for.",
        retryable=True,
        signs=(Sign(r"No space left on device", "no space is left on the device", of_tool=True),),
    ),
    Code.NO_MEMORY: Explanation(
        "Memory is too little for a build, or a module found none.",
        "Raise the container's memory limit, or lower --max-threads.",
        retryable=True,
        signs=(
            Sign(r"vmap allocation for size (?P<size>\d+) failed", "the kernel found no {size} bytes for the module"),
            Sign(r"Cannot allocate memory|virtual memory exhausted", "out of memory", of_tool=True),
        ),
    ),
    Code.GPU_LEGACY: Explanation(
        "The GPU needs an older driver branch, which the message names.",
        "Use an image of that branch.",
        signs=(
            Sign(
                r"The (?:NVIDIA )?(?P<gpu>.+?) GPU installed in this system is supported through the "
                r"NVIDIA (?P<branch>\S+) Legacy drivers",
                "{gpu} is supported by the legacy driver branch {branch} only",
            ),
            Sign(
                r"The Unknown NVIDIA (?P<gpu>.+?) Series GPU installed in this system is not supported through the \S+ "
                r"NVIDIA driver\. You can try the NVIDIA (?P<branch>\S+) Legacy drivers",
                "a GPU of the {gpu} series may be supported by the legacy driver branch {branch}",
            ),
        ),
    ),
    Code.GPU_TOO_NEW: Explanation(
        "This driver release does not know the GPU yet.",
        "Use an image with a newer driver.",
        signs=(
            Sign(
                r"The NVIDIA GPU (?P<address>\S+) \(PCI ID: (?P<id>\S+)\) installed in this system is not supported by "
                r"the NVIDIA (?P<version>\S+) driver release",
                "GPU {address} ({id}) is not supported by driver {version}",
            ),
        ),
    ),
    Code.UNLOAD_FAILED: Explanation(
        "A module could not be unloaded.",
        "Look for an Oops or a hang in the kernel log; if the module stays though nobody uses it, reboot the node.",
        retryable=True,
    ),
    Code.MOUNT_FAILED: Explanation(
        "The driver root could not be published or withdrawn.",
        "Run the container privileged, with /run/nvidia mounted rshared and nothing read-only on /run.",
        retryable=True,
    ),
    Code.FIRMWARE_FAILED: Explanation(
        "The GSP firmware could not be placed where the kernel looks for it.",
        "Run the container privileged, with nothing read-only on /sys/module/firmware_class and /lib/firmware.",
    ),
    Code.DEVICE_NODES_FAILED: Explanation(
        "A device node could not be made.",
        "Run the container with --privileged.",
    ),
    Code.DAEMON_FAILED: Explanation(
        "A daemon of the driver did not start; its reason from syslog is in the message.",
        "Act upon its own words in the log; `nvidia-smi` in the container tells whether the GPUs answer.",
        retryable=True,
    ),
    Code.WRONG_MODULE_TYPE: Explanation(
        "The GPU works with the other module type only.",
        "Set KERNEL_MODULE_TYPE as the message says.",
        signs=(
            Sign(
                r"The NVIDIA GPU (?P<address>\S+) \(PCI ID: (?P<id>\S+)\) installed in this system is not supported by "
                r"open nvidia\.ko because it does not include the required GPU System Processor",
                "GPU {address} ({id}) has no GPU System Processor and needs the proprietary modules",
            ),
            Sign(
                r"The NVIDIA GPU (?P<address>\S+) \(PCI ID: (?P<id>\S+)\) installed in this system (?:is self-hosted, "
                r"and )?requires use of the NVIDIA open kernel modules",
                "GPU {address} ({id}) needs the open modules",
            ),
        ),
    ),
    Code.GPU_TAKEN: Explanation(
        "Every GPU is bound to another driver (vfio-pci, nouveau).",
        "Unbind it, or keep nouveau from loading (modprobe.blacklist=nouveau), then start again.",
        signs=(
            Sign(r"GPU (?P<address>\S+) is already bound to (?P<driver>[\w-]+)", "GPU {address} is bound to {driver}"),
            Sign(
                r"The NVIDIA probe routine was not called for (?P<count>\d+) device",
                "{count} GPU(s) are bound to another driver",
            ),
            Sign(r"request_mem_region failed for (?P<what>\S+ @ \w+)", "another driver claims the GPU's memory {what}"),
        ),
    ),
    Code.HOST_DRIVER: Explanation(
        "A driver is installed on the host itself.",
        "Remove it from the host, or do not run a driver container here.",
    ),
    Code.FABRIC_MANAGER_MISSING: Explanation(
        "The node has NVSwitches or NVLink 5, and no fabric manager is started.",
        "Use a driver container that runs the fabric manager on this node: driverctr does not yet.",
    ),
    Code.NO_GPU: Explanation(
        "The node has no NVIDIA GPU.",
        "Set NO_GPU=wait to wait for one, or do not schedule the container here.",
        signs=(Sign(r"No NVIDIA (?:GPU|PCI devices) found", "the kernel shows it no NVIDIA GPU"),),
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
        signs=(
            Sign(
                r"GPU (?P<address>[\w:.]+): RmInitAdapter failed! \((?P<status>[^)]+)\)",
                "GPU {address} could not be initialised (RmInitAdapter {status})",
            ),
        ),
    ),
    Code.NODE_FILE: Explanation(
        "A file of the node cannot be read or written.",
        "See what keeps us from the file that the message names: its mount, its mode, a failing medium.",
    ),
    Code.COMMAND_FAILED: Explanation(
        "A program is missing, failed or took too long.",
        "Run the command of the message in the container; one that hangs is explained by the kernel log, a missing one "
        "by an image that is incomplete.",
        retryable=True,
    ),
    Code.GPU_LOST: Explanation(
        "A GPU that served has vanished from the bus.",
        "Look at the GPU, its power and its slot; restart the container when it is back.",
        retryable=True,
        signs=(
            Sign(r"GPU (?P<address>[\w:.]+): GPU has fallen off the bus", "GPU {address} has fallen off the bus"),
            Sign(
                r"The NVIDIA GPU (?P<address>\S+) \(PCI ID: \S+\) installed in this system has fallen off the bus",
                "GPU {address} has fallen off the bus",
            ),
        ),
    ),
    Code.STUCK: Explanation(
        "A module's load or unload did not end in its time, and no signal ends it; the message tells where it sleeps.",
        "Wait for the kernel, then start again or run `driverctr unload`; if it never ends, reboot the node.",
    ),
    Code.NO_DEVICE: Explanation(
        "The module found no device that it drives.",
        "See that the GPU is on the bus (`lspci -d 10de:`) and supported by this driver; the message has the kernel's "
        "words.",
        signs=(
            Sign(r"The NVIDIA probe routine failed for (?P<count>\d+) device", "{count} GPU(s) did not start"),
            Sign(r"No such device", "it found no device that it drives", of_tool=True),
        ),
    ),
    Code.OTHER_VERSION: Explanation(
        "Modules of another driver version are loaded, and userspace does not match them.",
        "Unload them, or use an image of their version.",
        signs=(
            Sign(
                r"API mismatch: the client has the version (?P<client>[\d.]*\d)\D.*?this kernel module has the version "
                r"(?P<kernel>[\d.]*\d)",
                "userspace is of version {client}, the loaded modules of {kernel}",
            ),
            Sign(
                r"Driver/library version mismatch",
                "userspace and the loaded modules are of different versions",
                of_tool=True,
            ),
            Sign(
                rf"^[\w-]+: (?:disagrees about version of symbol|no symbol version for) (?P<symbol>{OF_NVIDIA}\w*)",
                "the nvidia module that is loaded is of another build ({symbol} differs)",
            ),
            Sign(
                rf"^[\w-]+: Unknown symbol (?P<symbol>{OF_NVIDIA}\w*) \(err -2\)",
                "the nvidia module that is loaded is of another version ({symbol} is not in it)",
            ),
        ),
    ),
    Code.WRONG_KERNEL: Explanation(
        "The module, or the precompiled image as a whole, is for another kernel.",
        "Build it for the running one, or use the image that is for it; its tag is in the message.",
        signs=(
            Sign(
                r"^[\w-]+: version magic '(?P<built>.*?) ?' should be '(?P<runs>.*?) ?'",
                "it was built for a kernel `{built}`, this one is `{runs}`",
            ),
            Sign(
                rf"^[\w-]+: disagrees about version of symbol (?!{OF_NVIDIA}|ib_)(?P<symbol>\S+)",
                "it was built for a kernel whose {symbol} differs",
            ),
            Sign(
                rf"^[\w-]+: no symbol version for (?!{OF_NVIDIA}|ib_)(?P<symbol>\S+)",
                "its file has no version of {symbol}",
            ),
        ),
    ),
    Code.UNKNOWN_SYMBOL: Explanation(
        "The module needs a symbol that the kernel, or a module it depends on, does not have.",
        "Build the modules for this kernel, and with the headers of the MOFED in use.",
        signs=(
            Sign(
                r"^[\w-]+: Unknown symbol (?P<symbol>\S+) \(err -2\)",
                "it needs {symbol}, which the kernel does not have",
            ),
            Sign(
                r"module compiled without IB peer memory symbols present",
                "it was built without the symbols of MOFED's ib_core",
            ),
            Sign(
                r"^[\w-]+: (?:disagrees about version of symbol|no symbol version for) (?P<symbol>ib_\w+)",
                "it was built with another MOFED ({symbol} differs)",
            ),
            Sign(r"Unknown symbol in module", "it needs a symbol that the kernel does not have", of_tool=True),
        ),
    ),
    Code.KEY_REJECTED: Explanation(
        "The kernel does not trust the module's signature.",
        "Sign the modules with a key enrolled on the host (MOK), or switch Secure Boot off.",
        signs=(
            Sign(r"Loading of (?P<what>.+) is rejected", "the kernel rejects it: {what}"),
            Sign(
                r"Lockdown: \S+: (?P<what>.+) is restricted; see man kernel_lockdown",
                "the kernel is locked down: {what} is restricted",
            ),
            Sign(r"Key was rejected by service", "the kernel rejects its signature", of_tool=True),
            Sign(
                r"Required key not available",
                "the kernel does not have the key it is signed with, or it is unsigned",
                of_tool=True,
            ),
        ),
    ),
    Code.BAD_PARAMETER: Explanation(
        "A module parameter is unknown, or has a value the module refuses.",
        "Correct /drivers/<module>.conf as the message says.",
        signs=(
            Sign(
                r"^[\w-]+: [`'](?P<value>.*)' (?:invalid|too large) for parameter [`'](?P<name>[^']+)'",
                "parameter {name} cannot be `{value}`",
            ),
        ),
    ),
    Code.WRONG_ARCHITECTURE: Explanation(
        "A file is for another processor architecture.",
        "Use an image for the node's architecture.",
        signs=(
            Sign(
                r"Invalid architecture in ELF header: (?P<machine>\d+)",
                "its file is for another processor architecture (ELF machine {machine})",
            ),
        ),
    ),
    Code.REMOTE_FAILED: Explanation(
        "The server of REMOTE_URL did not give what was asked, within the time it has; the message says what it did.",
        "See that the server answers from this node, and the proxy variables; meanwhile modules are built here.",
        retryable=True,
    ),
    Code.SIGNATURE_INVALID: Explanation(
        "What the server of REMOTE_URL gave is not what a key of REMOTE_PUBLIC_KEY has signed; nothing of it was used.",
        "Find out who changed it, then push the entry again; or give the public key of who signs.",
    ),
    Code.LOAD_FAILED: Explanation(
        "A module could not be loaded, for a reason without a code of its own.",
        "See that its file is whole (`driverctr store verify`), or build it anew; the message has the kernel's words.",
        retryable=True,
        signs=(
            Sign(r"Invalid ELF|invalid ELF structures", "its file is cut short or damaged"),
            Sign(r"Module (?P<module>\S+) not found", "there is no file of it in the module tree", of_tool=True),
            Sign(r"Exec format error|Invalid module format", "the kernel does not accept its file", of_tool=True),
        ),
    ),
    Code.BUG: Explanation(
        "An error in driverctr itself.",
        "Report it, with the traceback in the log.",
    ),
}


def remedy_for(error: DriverError) -> str:
    """What to do about an error: its own words, or where it has none those of its code."""
    return error.remedy or EXPLANATIONS[error.code].remedy
