"""Kernel headers by the image's own apt, from repositories that are made here: good ones, and each kind of bad one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness import aptrepo, containers
from harness.aptrepo import Served

pytestmark = pytest.mark.image

RELEASE = "9.9.9-1-amd64"
COMMON = "linux-headers-9.9.9-1-common"
VERSION = "9.9.9-1"
LIMIT_S = 300
# A build goes on from headers that were found, and ends at what they lack: the codes of docs/failures.md tell which.
BUILD_FAILED, HEADERS_MISSING, PACKAGES_FAILED, PACKAGES_UNTRUSTED = 13, 11, 14, 46
FOUND = "headers: 9.9.9-1-amd64 from packages linux-headers-9.9.9-1-amd64, linux-headers-9.9.9-1-common"


@dataclass(frozen=True)
class Lab:
    """Repositories by name below a folder that is served, and the public key that the good ones are signed with."""

    folder: Path
    served: Served
    key: Path


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Return repositories with small packages in Debian's layout."""
    folder = tmp_path_factory.mktemp("lab")
    good, bad = aptrepo.make_key(folder, "good"), aptrepo.make_key(folder, "bad")
    packages = make_headers(folder)
    aptrepo.publish(folder / "good", packages, good)
    aptrepo.publish(folder / "wrong-key", packages, bad)
    aptrepo.publish(folder / "unsigned", packages, None)
    aptrepo.publish(folder / "expired", packages, good, valid_for=-2)
    aptrepo.publish(folder / "empty", [], good)
    common = f"pool/{COMMON}_{VERSION}_amd64.deb"
    aptrepo.publish(folder / "gone", packages, good)
    (folder / "gone" / common).unlink()
    aptrepo.publish(folder / "changed", packages, good)
    with (folder / "changed" / common).open("r+b") as file:
        file.seek(-5, 2)
        file.write(b"x")
    shutil.copytree(folder / "good/pool", folder / "bare")
    with aptrepo.serving(folder) as served:
        yield Lab(folder, served, good.public)


def make_headers(folder: Path) -> list[Path]:
    """A flavour, whose Makefile includes the common part, and that part with the tools."""
    own, common = f"usr/src/linux-headers-{RELEASE}", f"usr/src/{COMMON}"
    return [
        aptrepo.make_package(
            folder,
            f"linux-headers-{RELEASE}",
            VERSION,
            {
                f"{own}/Makefile": f"include /{common}/Makefile\n",
                f"{own}/include/generated/utsrelease.h": f'#define UTS_RELEASE "{RELEASE}"\n',
                f"{own}/include/generated/uapi/linux/version.h": "#define LINUX_VERSION_CODE 591113\n",
                f"{own}/include/config/auto.conf": 'CONFIG_CC_VERSION_TEXT="gcc-12 (Debian 12.2.0-14) 12.2.0"\n',
                f"{own}/scripts": f"-> ../{COMMON}/scripts",
                f"usr/lib/modules/{RELEASE}/build": f"-> /{own}",
            },
            depends=f"{COMMON} (= {VERSION}), linux-image-{RELEASE}",
        ),
        aptrepo.make_package(
            folder,
            COMMON,
            VERSION,
            {f"{common}/Makefile": "$(error nothing is made of these)\n"}
            | {f"{common}/scripts/{tool}": "#!/bin/sh\nexit 1\n" for tool in ("basic/fixdep", "mod/modpost")},
        ),
    ]


def build(
    tag: str,
    lab: Lab,
    source: str = "",
    folder: str = "",
    environment: Mapping[str, str] | None = None,
    before: str = ":",
    **options: Any,
) -> tuple[int, str]:
    """Have the image build for a kernel whose headers it must fetch; the status and the log."""
    listed = lab.folder / "own.list"
    listed.write_text(f"deb {lab.served.address}/{source} stable main\n" if source else "# none\n")
    (lab.folder / "default-repositories").write_text("/etc/apt/sources.list\n/etc/apt/sources.list.d/debian.sources\n")
    volumes = {
        lab.key: "/etc/apt/trusted.gpg.d/own.asc",
        listed: "/etc/apt/sources.list.d/own.list",
        lab.folder / "default-repositories": "/usr/share/driverctr/default-repositories",
        **({lab.folder / folder: "/drivers/packages"} if folder else {}),
    }
    argv: Sequence[str] = ["sh", "-c", f"{before}; exec nvidia-driver build --kernel {RELEASE}"]
    with containers.started(
        tag,
        argv,
        environment={"DEFAULT_REPOSITORIES": "false", **(environment or {})},
        volumes={str(path): {"bind": place, "mode": "ro"} for path, place in volumes.items()},
        **{"network_mode": "host", **options},
    ) as container:
        status = container.wait(timeout=LIMIT_S)["StatusCode"]
        return status, container.logs().decode(errors="replace")


@pytest.mark.parametrize(
    ("source", "status", "told"),
    [
        ("good", BUILD_FAILED, FOUND),
        ("wrong-key", PACKAGES_UNTRUSTED, "which is not trusted here"),
        ("unsigned", PACKAGES_UNTRUSTED, "unsigned stable is not signed"),
        ("expired", PACKAGES_UNTRUSTED, "InRelease is expired (invalid since 2d"),
        ("gone", PACKAGES_FAILED, "is listed in the index and gone from the repository"),
        ("changed", PACKAGES_FAILED, "is not the file that the signed index lists"),
        ("nowhere", PACKAGES_FAILED, "there is no repository at"),
        (
            "empty",
            HEADERS_MISSING,
            f"repositories: there is no package linux-headers-{RELEASE}; ARCHIVE_URL: it is not",
        ),
    ],
)
def test_a_repository_serves_or_is_refused_in_plain_words(
    tag: str, lab: Lab, source: str, status: int, told: str
) -> None:
    ended, log = build(tag, lab, source)
    assert (ended, told in log) == (status, True), log
    assert "Traceback" not in log


def test_an_archive_past_its_date_serves_as_archive_url(tag: str, lab: Lab) -> None:
    url = f"{lab.served.address}/expired stable main"
    ended, log = build(tag, lab, "empty", environment={"ARCHIVE_URL": url})
    assert (ended, f"{FOUND} of ARCHIVE_URL" in log) == (BUILD_FAILED, True), log
    url = f"{lab.served.address}/unsigned stable main"
    ended, log = build(tag, lab, environment={"ARCHIVE_URL": url})
    assert ended == PACKAGES_UNTRUSTED, log


@pytest.mark.parametrize("folder", ["bare", "good"])
def test_a_folder_of_packages_serves_with_the_network_cut(tag: str, lab: Lab, folder: str) -> None:
    lab.served.fetched.clear()
    ended, log = build(tag, lab, "good", folder, network_mode="none")
    assert (ended, f"{FOUND} of PACKAGES_DIR=/drivers/packages" in log) == (BUILD_FAILED, True), log
    assert ("trusted as your own" in log) == (folder == "bare")
    assert lab.served.fetched == {}


def test_a_repository_in_the_folder_is_verified(tag: str, lab: Lab) -> None:
    ended, log = build(tag, lab, folder="unsigned", network_mode="none")
    assert (ended, "file:/drivers/packages stable is not signed" in log) == (PACKAGES_UNTRUSTED, True), log


def test_a_database_of_dpkg_that_is_damaged_and_locked_is_in_nobodys_way(tag: str, lab: Lab) -> None:
    opened = "f = open('/var/lib/dpkg/lock-frontend', 'w')"
    lock = f"import fcntl, time; {opened}; fcntl.lockf(f, fcntl.LOCK_EX); time.sleep(99)"
    held = f'echo damaged > /var/lib/dpkg/status; python3 -c "{lock}" & sleep 1'
    ended, log = build(tag, lab, "good", before=held)
    assert (ended, FOUND in log) == (BUILD_FAILED, True), log
