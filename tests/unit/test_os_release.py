"""os-release(5): ours and the host's, and distributions that are known, like a known one, or neither."""

from pathlib import Path

import pytest

from driverctr import distros
from driverctr.errors import Code, DriverError
from driverctr.facts import osrelease
from driverctr.facts.osrelease import OsRelease
from driverctr.paths import Paths
from tests.unit.conftest import make_tree

JAMMY = """# comment
PRETTY_NAME="Ubuntu 22.04.5 LTS"
VERSION_ID="22.04"
VERSION_CODENAME=jammy
ID=ubuntu
ID_LIKE=debian
nonsense
BROKEN="no end
"""
ROCKY = 'NAME="Rocky Linux"\nID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\nPRETTY_NAME="Rocky 9.4"\n'


def test_what_is_read_and_what_is_left_out() -> None:
    assert osrelease.parse(JAMMY) == OsRelease("ubuntu", "22.04", ("debian",), "jammy", "Ubuntu 22.04.5 LTS")
    assert osrelease.parse(ROCKY).id_like == ("rhel", "centos", "fedora") and osrelease.parse(ROCKY).major == "9"
    quoted = osrelease.parse('ID=\'a\'\nPRETTY_NAME="5 \\$ \\"x\\" \\\\ \\`"\n')
    assert (quoted.id, quoted.name) == ("a", '5 $ "x" \\ `')
    assert osrelease.parse("") == OsRelease("linux") and str(OsRelease("rhel", "9.4")) == "rhel 9.4"


def test_our_own_is_the_first_of_two_files_and_an_image_without_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="distribution is unknown") as raised:
        osrelease.of_image(tmp_path)
    assert raised.value.code is Code.NODE_FILE and raised.value.remedy
    make_tree(tmp_path, {"usr/lib/os-release": ROCKY})
    assert osrelease.of_image(tmp_path).id == "rocky"
    make_tree(tmp_path, {"etc/os-release": JAMMY})
    assert osrelease.of_image(tmp_path).id == "ubuntu"


def test_the_hosts_is_what_the_operator_mounts_or_process_1_shows(paths: Paths) -> None:
    assert osrelease.of_host(paths) is None
    make_tree(
        paths.root,
        {
            "proc/1/ns/mnt": "-> mnt:[1]",
            "proc/self/ns/mnt": "-> mnt:[2]",
            "proc/1/root/lib/modules": None,
            "proc/1/root/etc/os-release": "-> ../usr/lib/os-release",
            "proc/1/root/usr/lib/os-release": ROCKY,
        },
    )
    assert osrelease.of_host(paths) == osrelease.parse(ROCKY)
    make_tree(paths.root, {"host-etc/os-release": JAMMY})
    assert osrelease.of_host(paths) == osrelease.parse(JAMMY)


def test_our_own_root_is_not_taken_for_the_hosts(paths: Paths) -> None:
    same = {"proc/1/ns/mnt": "-> mnt:[1]", "proc/self/ns/mnt": "-> mnt:[1]", "proc/1/root/etc/os-release": ROCKY}
    make_tree(paths.root, same)
    assert osrelease.of_host(paths) is None


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        (OsRelease("debian", "12"), "debian"),
        (OsRelease("ubuntu", "24.04", ("debian",)), "ubuntu"),
        (OsRelease("pop", "22.04", ("ubuntu", "debian")), "ubuntu"),
        (OsRelease("eurolinux", "9.4", ("rhel", "fedora", "centos")), "rhel"),
        (OsRelease("almalinux", "9.4", ("rhel", "centos", "fedora")), "almalinux"),
    ],
)
def test_a_distribution_works_by_its_name_or_by_what_it_is_like(release: OsRelease, expected: str) -> None:
    assert distros.of(release).name == expected


@pytest.mark.parametrize(
    "release", [OsRelease("flatcar", "3815.2", ("coreos",)), OsRelease("__init__"), OsRelease("..")]
)
def test_an_unknown_distribution_is_refused_with_what_to_do(release: OsRelease) -> None:
    with pytest.raises(DriverError, match=f"ID={release.id}") as raised:
        distros.of(release)
    assert raised.value.code is Code.BAD_SETTING
    assert all(name in raised.value.remedy for name in ("debian", "ubuntu", "rhel", "ID_LIKE"))


DEBIAN_12 = OsRelease("debian", "12", name="Debian GNU/Linux 12 (bookworm)")
UBUNTU_22 = OsRelease("ubuntu", "22.04", ("debian",), name="Ubuntu 22.04.5 LTS")
UBUNTU_24 = OsRelease("ubuntu", "24.04", ("debian",))
RHEL_94 = OsRelease("rhel", "9.4", ("fedora",))
ROCKY_94 = osrelease.parse(ROCKY)


@pytest.mark.parametrize(
    ("image", "host"),
    [
        (DEBIAN_12, None),
        (DEBIAN_12, DEBIAN_12),
        (RHEL_94, OsRelease("rhel", "9.6", ("fedora",))),
        (UBUNTU_22, OsRelease("linuxmint", "21.3", ("ubuntu", "debian"))),
        (UBUNTU_22, OsRelease("elementary", "7.1", ("ubuntu", "debian"))),
        (ROCKY_94, OsRelease("rocky", "9.6")),
    ],
)
def test_packages_that_may_have_the_hosts_kernel_are_asked(image: OsRelease, host: OsRelease | None) -> None:
    assert distros.of(image).describe_mismatch(host) == ""


@pytest.mark.parametrize(
    ("image", "host"),
    [
        (DEBIAN_12, UBUNTU_22),
        (UBUNTU_22, DEBIAN_12),
        (UBUNTU_22, UBUNTU_24),  # 6.8.0-45-generic is in both, built twice
        (UBUNTU_24, OsRelease("linuxmint", "21.3", ("ubuntu", "debian"))),
        (DEBIAN_12, OsRelease("debian", "13")),
        (RHEL_94, OsRelease("rhel", "8.10")),
        (RHEL_94, ROCKY_94),  # 5.14.0-427.13.1.el9_4.x86_64 is in both, built twice
        (RHEL_94, OsRelease("centos", "9", ("rhel", "fedora"))),
        (UBUNTU_22, OsRelease("flatcar", "3815.2", name="Flatcar Container Linux")),
    ],
)
def test_packages_that_cannot_have_the_hosts_kernel_are_named_with_the_reason(
    image: OsRelease, host: OsRelease
) -> None:
    why = distros.of(image).describe_mismatch(host)
    assert f"the host is {host}" in why and str(image) in why
