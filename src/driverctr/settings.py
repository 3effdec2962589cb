"""The table of settings: variable, parser, default and help, and the values they take."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from driverctr.depth import Depth
from driverctr.log import Format, Level
from driverctr.paths import FEATURES_DIR
from driverctr.records import frozen
from driverctr.values import (
    not_valid,
    parse_archive,
    parse_boolean,
    parse_endpoint,
    parse_member,
    parse_path,
    parse_pause,
    parse_public_keys,
    parse_release,
    parse_seconds,
    parse_size,
    parse_text,
    parse_textfile,
    parse_threads,
    parse_token,
    parse_url,
    parse_version,
    parse_whole,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class ModuleType(StrEnum):
    """Which of NVIDIA's two kernel module sources is wanted."""

    AUTO = "auto"
    OPEN = "open"
    PROPRIETARY = "proprietary"


class Unknown(StrEnum):
    """What to do about a module parameter that the module does not know."""

    WARN = "warn"
    REFUSE = "refuse"


class OnStop(StrEnum):
    """What becomes of the driver when we are stopped."""

    UNLOAD = "unload"
    KEEP = "keep"


@frozen
class GpuNeed:
    """How many GPUs must serve: `least`, or all of them (None)."""

    least: int | None = None

    def of(self, present: int) -> int:
        """The number that must serve of those present; a driver without any GPU serves nobody."""
        return max(1, present) if self.least is None else self.least


class NoGpu(StrEnum):
    """What to do where no GPU is."""

    FAIL = "fail"
    WAIT = "wait"


class Retry(StrEnum):
    """Which failures are tried again by the start that met them."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class WhenBusy(StrEnum):
    """What becomes of changed module parameters while somebody uses the driver."""

    WAIT = "wait"
    REFUSE = "refuse"


class DriverType(StrEnum):
    """What kind of driver the image carries."""

    PASSTHROUGH = "passthrough"


@frozen
class Setting:
    """One row of the table: the variable, the field it fills, its parser, its default as text, and its help."""

    variable: str
    field: str
    parse: Callable[[str, str], Any]
    default: str
    help: str


def parse_gpus(variable: str, value: str) -> GpuNeed:
    """all, any, or how many; raises DriverError."""
    if value in ("all", "any"):
        return GpuNeed(None if value == "all" else 1)
    least = parse_whole(value, 4096)
    if least is None:
        raise not_valid(variable, value, "all, any, or a whole number from 1 to 4096")
    return GpuNeed(least)


def parse_attempts(variable: str, value: str) -> int:
    """How often; raises DriverError."""
    found = parse_whole(value, 1000)
    if found is None:
        raise not_valid(variable, value, "a whole number from 1 to 1000")
    return found


SETTINGS = (
    Setting("DRIVER_VERSION", "driver_version", parse_version, "", "Driver version wanted; default: the image's."),
    Setting("DRIVER_TYPE", "driver_type", parse_member(DriverType), "passthrough", "Kind of driver: passthrough."),
    Setting(
        "KERNEL_MODULE_TYPE",
        "module_type",
        parse_member(ModuleType),
        "auto",
        "Kernel module source: open, proprietary, or auto (what drives the GPUs; proprietary before branch 560, open "
        "from there on, where both do).",
    ),
    Setting("NO_GPU", "no_gpu", parse_member(NoGpu), "fail", "Where no GPU is: fail, or wait until one is plugged in."),
    Setting(
        "VERIFY_DEPTH",
        "verify_depth",
        parse_member(Depth),
        "smi",
        "What ready depends on: modules (kernel's truth), devices (and device nodes), smi (and nvidia-smi exits 0).",
    ),
    Setting(
        "VERIFY_GPUS",
        "verify_gpus",
        parse_gpus,
        "all",
        "How many GPUs must serve: all, any, or a number; of those that are ours and that ours drives.",
    ),
    Setting("VERIFY_TIMEOUT", "verify_timeout", parse_seconds, "120", "Seconds nvidia-smi may take."),
    Setting(
        "LOAD_TIMEOUT",
        "load_timeout",
        parse_seconds,
        "300",
        "Seconds a modprobe, an rmmod or a daemon's start may take; a large node brings up one GPU after the other.",
    ),
    Setting(
        "ON_STOP",
        "on_stop",
        parse_member(OnStop),
        "unload",
        "At the stop: unload the driver, or keep modules, device nodes and driver root for who uses them.",
    ),
    Setting(
        "STOP_TIMEOUT",
        "stop_timeout",
        parse_seconds,
        "25",
        "Seconds the stop may take from its signal on; keep it below the grace period.",
    ),
    Setting(
        "UNKNOWN_PARAMETERS",
        "unknown_parameters",
        parse_member(Unknown),
        "warn",
        "On a parameter in /drivers/<module>.conf that the module does not know: warn or refuse. Our own "
        "(NVreg_CoherentGPUMemoryMode=driver) is set where the module has it; a driver from branch 580 on that lacks "
        "it is warned of.",
    ),
    Setting(
        "DEFAULT_REPOSITORIES",
        "default_repositories",
        parse_boolean,
        "true",
        "Fetch kernel headers from the package repositories that the image brings; false: from those given to it only.",
    ),
    Setting(
        "PACKAGES_DIR",
        "packages_dir",
        parse_path,
        "/drivers/packages",
        "Folder of packages with kernel headers, or with a repository in it; asked before any network.",
    ),
    Setting(
        "ARCHIVE_URL",
        "archive_url",
        parse_archive,
        "",
        "Archive of old packages, asked last: address, suite and components, or one line of sources.list (apt); a "
        "repository's address (dnf).",
    ),
    Setting(
        "RETRY",
        "retry",
        parse_member(Retry),
        "auto",
        "Failures that may pass (`driverctr explain`) are tried again in the process: always, never, or auto: in a pod "
        "always, elsewhere those met before anything was touched, but not that the driver is in use.",
    ),
    Setting(
        "RETRY_ATTEMPTS",
        "retry_attempts",
        parse_attempts,
        "5",
        "Attempts of one start before it ends with the failure; that the driver is in use is waited for without end.",
    ),
    Setting(
        "RETRY_MAX_PAUSE",
        "retry_max_pause",
        parse_pause,
        "300",
        "Most seconds between two attempts, 1 or more: pauses begin at 10 and double, each up to a half shorter by "
        "chance.",
    ),
    Setting("MAX_THREADS", "max_threads", parse_threads, "", "Most jobs of a build; also -m, --max-threads."),
    Setting(
        "MODULES_DIR",
        "modules_dir",
        parse_path,
        "/opt/driverctr/modules",
        "Folder of modules built before: <kernel release>/<driver version>-<module type>/.",
    ),
    Setting(
        "STORE_DIR",
        "store_dir",
        parse_path,
        "/var/lib/driverctr/store",
        "Folder of the module store; used where it, or the folder it lies in, is there: mount one of the host's.",
    ),
    Setting(
        "STORE_ON_HOST",
        "store_on_host",
        parse_boolean,
        "false",
        "Take STORE_DIR on the host itself, through process 1's root (hostPID), where no such folder can be mounted.",
    ),
    Setting(
        "STORE_MAX_SIZE",
        "store_max_size",
        parse_size,
        "2G",
        "Size beyond which the store gives up what was used least recently; pinned entries stay.",
    ),
    Setting(
        "KEEP_USERSPACE",
        "keep_userspace",
        parse_boolean,
        "false",
        "Keep userspace and firmware of what served in the store too: a driver of another version that does not load "
        "then gives way to it.",
    ),
    Setting(
        "REMOTE_URL",
        "remote_url",
        parse_url,
        "",
        "HTTP(S) address of a folder of signed modules, as `store push` fills it; asked before a build.",
    ),
    Setting(
        "REMOTE_PUBLIC_KEY",
        "remote_public_key",
        parse_public_keys,
        "",
        "Ed25519 public key, as base64 or the path of a PEM file, that what comes from REMOTE_URL must be signed with; "
        "several with commas between.",
    ),
    Setting(
        "DNF_RELEASEVER",
        "dnf_releasever",
        parse_release,
        "",
        "On RHEL and what is built on it: the one release whose repositories are asked, in place of those that the "
        "kernel's name tells (9.4 with extended support, 9.4, 9).",
    ),
    Setting(
        "OPENSHIFT_VERSION",
        "openshift_version",
        parse_release,
        "",
        "On RHEL: version of OpenShift, such as 4.18, whose repository (rhocp) is asked too.",
    ),
    Setting(
        "UBUNTU_PRO_TOKEN",
        "ubuntu_pro_token",
        parse_token,
        "",
        "Token of Ubuntu Pro, for headers of FIPS and realtime kernels: attached while they are fetched, and detached.",
    ),
    Setting(
        "PARAMETERS_WHEN_BUSY",
        "parameters_when_busy",
        parse_member(WhenBusy),
        "wait",
        "On changed module parameters while the driver is in use: wait (serve, and apply them when idle) or refuse.",
    ),
    Setting(
        "PREBUILD",
        "prebuild",
        parse_boolean,
        "true",
        "While serving, build into the store for kernels that are installed on the host and have not run yet.",
    ),
    Setting(
        "METRICS_ADDRESS",
        "metrics_address",
        parse_endpoint,
        "",
        "Where to serve /metrics, /healthz and /readyz by HTTP: :9400 (every address), 127.0.0.1:9400 or [::1]:9400.",
    ),
    Setting(
        "METRICS_TEXTFILE",
        "metrics_textfile",
        parse_textfile,
        "",
        "File to keep the metrics in, for node-exporter: a path that ends in .prom, in a folder of the host's.",
    ),
    Setting(
        "GPU_DIRECT_RDMA_ENABLED",
        "rdma",
        parse_boolean,
        "false",
        "Load nvidia-peermem where a Mellanox NIC is; where it does not load the driver serves, degraded.",
    ),
    Setting("USE_HOST_MOFED", "host_mofed", parse_boolean, "false", "The host brings its own MOFED driver."),
    Setting(
        "PRECOMPILED_FALLBACK",
        "precompiled_fallback",
        parse_boolean,
        "false",
        "A precompiled image on another kernel than its own: have the modules from store, remote folder or build.",
    ),
    Setting("GDS_ENABLED", "gds", parse_boolean, "false", "Handed on in .driver-ctr-ready."),
    Setting("GDRCOPY_ENABLED", "gdrcopy", parse_boolean, "false", "Handed on in .driver-ctr-ready."),
    Setting("DRIVER_CONFIG_DIGEST", "config_digest", parse_text, "", "The operator's digest of its wish."),
    Setting(
        "NFD_FEATURES_DIR",
        "nfd_features_dir",
        parse_path,
        FEATURES_DIR,
        "Folder from which Node Feature Discovery takes labels; used where it is there: mount the host's.",
    ),
    Setting("LOG_FORMAT", "log_format", parse_member(Format), "text", "Log lines as text or json."),
    Setting(
        "LOG_LEVEL",
        "log_level",
        parse_member(Level),
        "info",
        "Least level logged: debug, info, warning, error.",
    ),
)
