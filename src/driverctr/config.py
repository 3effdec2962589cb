"""Environment and flags → one frozen Config, by a table of settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from driverctr import conceal
from driverctr.depth import Depth
from driverctr.errors import Code, DriverError
from driverctr.log import Format, Level
from driverctr.paths import DEFAULT_PATH
from driverctr.records import frozen
from driverctr.settings import (
    SETTINGS,
    DriverType,
    GpuNeed,
    ModuleType,
    NoGpu,
    OnStop,
    Retry,
    Setting,
    Unknown,
    WhenBusy,
)
from driverctr.values import Secret
from driverctr.versions import DriverVersion

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HANDED_TO_CHILDREN = (
    "HOME",
    "TMPDIR",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "LD_LIBRARY_PATH",
)


@frozen
class Config:
    """What the user wants; nothing here changes while we run, and nothing here was read from the node.

    `in_pod`: the kubelet started us. `given` are the settings that were given, by variable, as text: what another verb
    is started with to want the same.
    """

    driver_version: DriverVersion | None
    driver_type: DriverType
    module_type: ModuleType
    no_gpu: NoGpu
    verify_depth: Depth
    verify_gpus: GpuNeed
    verify_timeout: float
    on_stop: OnStop
    load_timeout: float
    stop_timeout: float
    unknown_parameters: Unknown
    default_repositories: bool
    packages_dir: Path
    archive_url: str
    retry: Retry
    retry_attempts: int
    retry_max_pause: float
    max_threads: int | None
    modules_dir: Path
    nfd_features_dir: Path
    store_dir: Path
    store_on_host: bool
    store_max_size: int
    keep_userspace: bool
    remote_url: str
    remote_public_key: str
    dnf_releasever: str
    openshift_version: str
    ubuntu_pro_token: Secret
    parameters_when_busy: WhenBusy
    prebuild: bool
    metrics_address: tuple[str, int] | None
    metrics_textfile: Path | None
    rdma: bool
    host_mofed: bool
    precompiled_fallback: bool
    gds: bool
    gdrcopy: bool
    config_digest: str
    log_format: Format
    log_level: Level
    in_pod: bool
    given: Mapping[str, str]
    child_environment: Mapping[str, str]


def load(environment: Mapping[str, str], flags: Mapping[str, str] | None = None) -> Config:
    """Read the settings; a flag (by variable) beats the environment; unknown variables are tolerated.

    Raises DriverError (bad-setting) for the first value that is not valid. An empty value means the default, but not
    for the driver version, as in NVIDIA's container (reference A.2): which driver a node gets is not left to a
    template that nobody filled in. What is secret among it all is concealed from now on, in an error too.
    """
    loaded, refused = load_valid(environment, flags)
    if refused:
        raise next(iter(refused.values()))
    return loaded


def load_valid(
    environment: Mapping[str, str], flags: Mapping[str, str] | None = None
) -> tuple[Config, Mapping[str, DriverError]]:
    """The same for who looks when things are bad: what is not valid counts as not given; and why not, by variable.

    What is secret is concealed as in `load`.
    """
    conceal.learn_environment(environment)
    flags = flags or {}
    values: dict[str, Any] = {}
    given: dict[str, str] = {}
    refused: dict[str, DriverError] = {}
    for row in SETTINGS:
        name = "--" + row.variable.lower().replace("_", "-") if row.variable in flags else row.variable
        text = flags.get(row.variable, environment.get(row.variable))
        try:
            value = _parse(row, name, text)
        except DriverError as error:
            refused[row.variable] = error
            value, text = row.parse(name, row.default), None
        values[row.field] = value
        given |= {row.variable: Secret(text) if isinstance(value, Secret) else text} if text else {}
    children = {name: environment[name] for name in HANDED_TO_CHILDREN if name in environment}
    loaded = Config(
        **values,
        in_pod="KUBERNETES_SERVICE_HOST" in environment,
        given=given,
        child_environment={"PATH": environment.get("PATH") or DEFAULT_PATH, **children},
    )
    return loaded, refused


def _parse(row: Setting, name: str, text: str | None) -> Any:
    if text == "" and row.variable == "DRIVER_VERSION":
        raise DriverError(
            Code.BAD_SETTING,
            "DRIVER_VERSION='' is empty",
            "Give a driver version such as 535.309.01, or leave it out: then it is the image's own",
        )
    return row.parse(name, text or row.default)


def of_process(environ: bytes) -> dict[str, str]:
    """Our settings, and what we hand to programs, in /proc/<pid>/environ (proc_pid_environ(5))."""
    known = {"PATH", *HANDED_TO_CHILDREN, *(row.variable for row in SETTINGS)}
    pairs = (os.fsdecode(entry).partition("=") for entry in environ.split(b"\0"))
    return {name: value for name, _, value in pairs if name in known}
