"""Red Hat Enterprise Linux's kernels, packages and repositories; rebuilds of it differ in the repositories' names."""

import re
from pathlib import Path
from typing import ClassVar

from driverctr.distros import CertificatePlace, Distro, HeaderPackages, KernelIdentity, Repositories, Rung, Tool
from driverctr.facts.compiler import major_of

RELEASE = re.compile(
    r"(?P<package>(?P<build>\d+(\.\d+)+-\d+)[\w.]*?(?P<rt>\.rt\d[\w.]*)?\.el(?P<major>\d+)(_(?P<minor>\d+))?[\w.]*?)"
    r"\.(?P<arch>x86_64|aarch64|ppc64le|s390x)(\+(?P<variant>[\w-]+))?"
)
"""5.14.0-427.13.1.el9_4.x86_64, with +debug, +rt or +64k for a variant; RHEL 8 and early 9 have .rt7.342 inside.

Rebuilds put their own mark behind: 5.14.0-427.28.1.el9_4.cloud.1.0.x86_64 (Rocky Linux's Cloud SIG).
"""

GENERAL = {
    "4.18.0-80": "8.0",
    "4.18.0-147": "8.1",
    "4.18.0-193": "8.2",
    "4.18.0-240": "8.3",
    "4.18.0-305": "8.4",
    "4.18.0-348": "8.5",
    "4.18.0-372": "8.6",
    "4.18.0-425": "8.7",
    "4.18.0-477": "8.8",
    "4.18.0-513": "8.9",
    "4.18.0-553": "8.10",
    "5.14.0-70": "9.0",
    "5.14.0-162": "9.1",
    "5.14.0-284": "9.2",
    "5.14.0-362": "9.3",
    "5.14.0-427": "9.4",
    "5.14.0-503": "9.5",
    "5.14.0-570": "9.6",
    "5.14.0-611": "9.7",
    "5.14.0-687": "9.8",
    "6.12.0-55": "10.0",
    "6.12.0-124": "10.1",
    "6.12.0-211": "10.2",
}
"""Minor releases by the build their kernels begin with (access.redhat.com/articles/3078); for a kernel that does not
name its minor, such as 5.14.0-427.el9 (defect 45 of the reference)."""

EXTENDED = ("8.1", "8.2", "8.4", "8.6", "8.8", "9.0", "9.2", "9.4", "9.6", "9.8", "10.0", "10.2")
"""Minor releases with Extended Update Support (access.redhat.com/support/policy/updates/errata)."""

SYSTEM_GCC = {"8": 8, "9": 11, "10": 14}
"""The major version of the package gcc by release; other ones come as gcc-toolset-<major>."""


class Rhel(Distro, name="rhel"):
    """RHEL: one package, of the kernel's variant, holds all its headers.

    `extended`, `general`, `realtime` and `containers` are names of repositories, made up of the release's major
    number, the architecture and OpenShift's version.
    """

    tool: ClassVar[Tool] = Tool.DNF
    kernels: ClassVar[str] = "rhel"
    certificates: ClassVar[CertificatePlace] = CertificatePlace(
        Path("/etc/pki/ca-trust/source/anchors"),
        ("update-ca-trust", "extract"),
        (Path("/etc/pki/ca-trust/extracted/pem"),),
    )
    extended: ClassVar[tuple[str, ...]] = (
        "rhel-{major}-for-{arch}-baseos-eus-rpms",
        "rhel-{major}-for-{arch}-appstream-eus-rpms",
    )
    general: ClassVar[tuple[str, ...]] = (
        "rhel-{major}-for-{arch}-baseos-rpms",
        "rhel-{major}-for-{arch}-appstream-rpms",
    )
    realtime: ClassVar[tuple[str, ...]] = ("rhel-{major}-for-{arch}-rt-rpms", "rhel-{major}-for-{arch}-nfv-rpms")
    containers: ClassVar[tuple[str, ...]] = ("rhocp-{openshift}-for-rhel-{major}-{arch}-rpms",)

    @property
    def tag(self) -> str:
        """Minor releases share an image: rhel9 (gpu-operator's nodepool.go says so of RHEL and what is built on it)."""
        return self.release.id + self.release.major

    def identify(self, release: str, version: str = "") -> KernelIdentity:
        """All is in the release: the package's version, the minor, the architecture, the variant.

        `uname -v` adds only when it was built, and so tells a rebuild's kernel from RHEL's of the same name.
        """
        if (named := RELEASE.fullmatch(release)) is None:
            return KernelIdentity(release)
        variant = named["variant"] or ""
        flavour = f"rt-{variant}".rstrip("-") if named["rt"] and "rt" not in variant else variant
        told = f"{named['major']}.{named['minor']}" if named["minor"] else ""
        return KernelIdentity(
            release,
            flavour=flavour,
            minor=told or self.minor_of_build(named["build"], named["major"]),
            package_version=named["package"],
            architecture=named["arch"],
            source="access.redhat.com/articles/3078",
        )

    def minor_of_build(self, build: str, major: str) -> str:
        """The minor that a kernel's build belongs to where its release does not say so; "" where that is not known."""
        known = GENERAL.get(build, "")
        return known if known.split(".")[0] == major else ""

    def package(self, release: str, part: str) -> str:
        """A package of a kernel: kernel[-<variant>]-<part>-<version>.<arch>, the variant's mark left out."""
        flavour = self.identify(release).flavour
        return "-".join(filter(None, ("kernel", flavour, part, release.split("+")[0])))

    def header_packages(self, release: str) -> HeaderPackages:
        """kernel-devel alone; kernel-devel-matched holds nothing, and would bring the kernel along."""
        return HeaderPackages(self.package(release, "devel"), re.compile(r"(?!)"))

    def module_packages(self, release: str) -> tuple[str, ...]:
        """What a kernel needs to boot is in modules-core since 9.2, in core before; the rest in modules and -extra."""
        parts = ("core", "modules", "modules-extra") if ".el8" in release else ("modules-core", "modules", "core")
        return tuple(self.package(release, part) for part in parts)

    def compiler_package(self, cc_version_text: str) -> str:
        """gcc where it is the release's own, else a toolset's (RHEL, "Developing C and C++ applications")."""
        command = cc_version_text.split(" ")[0]
        major = major_of(cc_version_text)
        if command != "gcc" or major in (None, SYSTEM_GCC.get(self.release.major)):
            return command
        return f"gcc-toolset-{major}-gcc"

    def repositories(self, identity: KernelIdentity, *, releasever: str = "", openshift: str = "") -> Repositories:
        """EUS of the minor, the minor, the major, or the user's own releasever alone (reference E, RHEL)."""
        major = identity.minor.split(".")[0] or self.release.major
        minor = releasever or identity.minor
        beside = (*(self.realtime if "rt" in identity.flavour else ()), *(self.containers if openshift else ()))

        def named(names: tuple[str, ...]) -> tuple[str, ...]:
            arch = identity.architecture
            return tuple(name.format(major=major, arch=arch, openshift=openshift) for name in (*names, *beside))

        ladder = [Rung(minor, named(self.extended))] if self.extended and minor in EXTENDED else []
        versions = filter(None, dict.fromkeys((minor, releasever or major)))
        return Repositories((*ladder, *(Rung(version, named(self.general)) for version in versions)))

    @property
    def line(self) -> str:
        """The repositories of a major release hold the kernels of all its minors."""
        return self.release.major if self.release.id == self.name else ""
