"""Which package tool a distribution has; only that one is imported."""

from collections.abc import Callable
from pathlib import Path

from driverctr.distros import Distro, KernelIdentity, Repositories, Tool
from driverctr.log import Log
from driverctr.packages import PackageTool, Sources
from driverctr.run import Runner


def tool_for(
    distro: Distro,
    identity: KernelIdentity,
    repositories: Repositories,
    sources: Sources,
    *,
    runner: Runner,
    scratch: Path,
    pause: Callable[[float], object],
    log: Log,
    pro_token: str = "",
) -> PackageTool:
    """The package tool of a distribution, imported only now; `pause` waits between attempts."""
    if distro.tool is Tool.DNF:
        from driverctr.packages.dnf import Dnf

        return Dnf(runner, scratch, pause, log, sources, repositories)
    from driverctr.packages.apt import Apt

    apt = Apt(runner, scratch, pause, log, sources, identity.package_version)
    if not repositories.pro_service:
        return apt
    from driverctr.packages.ubuntupro import WithPro

    return WithPro(apt, runner, scratch, identity.release, repositories.pro_service, pro_token)
