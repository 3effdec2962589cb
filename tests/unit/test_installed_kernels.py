"""Kernels that do not run: which are installed on the host, which may come next, and what is known of them."""

import random
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driverctr.errors import DriverError
from driverctr.facts import hostroot, installed, kernel
from driverctr.paths import Paths
from driverctr.versions import KernelRelease
from tests.unit.conftest import make_tree

RUNNING = "6.1.0-56-amd64"
NEXT = "6.1.0-57-amd64"
VERSION = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-16)"
LATER = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.200-1 (2026-12-01)"


def boot_image(release: str, version: str, by: str = "debian-kernel@lists.debian.org") -> bytes:
    """The head of an x86 kernel image (Documentation/arch/x86/boot.rst), its version string at 0x3400."""
    head = bytearray(0x3400)
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x20E, 0x3200)
    return bytes(head) + f"{release} ({by}) {version}".encode() + b"\0" + b"\xff" * 9000


def place_image(root: Path, release: str, version: str) -> None:
    (root / "boot").mkdir(exist_ok=True, parents=True)
    (root / f"boot/vmlinuz-{release}").write_bytes(boot_image(release, version))


def headers_files(release: str, version: str, file: str = "utsversion.h") -> dict[str, str | None]:
    generated = f"usr/src/linux-headers-{release}/include/generated"
    return {
        f"lib/modules/{release}/build": f"-> /usr/src/linux-headers-{release}",
        f"{generated}/utsrelease.h": f'#define UTS_RELEASE "{release}"\n',
        f"{generated}/{file}": f'#define UTS_VERSION "{version}"\n',
    }


def host(root: Path, *releases: str, running: str = RUNNING) -> Path:
    """A node whose host is seen through process 1's root; returns that root."""
    found = root / "proc/1/root"
    make_tree(
        root,
        {
            "proc/1/ns/mnt": "-> mnt:[1]",
            "proc/self/ns/mnt": "-> mnt:[2]",
            "proc/sys/kernel/osrelease": f"{running}\n",
            "proc/sys/kernel/version": f"{VERSION}\n",
            "proc/self/mountinfo": "1 0 0:1 / / rw - ext4 /dev/a rw\n",
            "proc/1/root/lib/modules": None,
        },
    )
    for release in releases:
        make_tree(found, {f"lib/modules/{release}/modules.builtin": ""})
    return found


def releases(paths: Paths) -> list[str]:
    return [each.release.text for each in installed.read(paths)]


def upcoming(paths: Paths) -> list[str]:
    return [each.release.text for each in installed.upcoming(paths)]


def test_the_boot_image_tells_the_version_of_a_kernel_that_does_not_run(tmp_path: Path) -> None:
    root = host(tmp_path, RUNNING, NEXT)
    place_image(root, NEXT, LATER)
    make_tree(root, headers_files(NEXT, "#2 of its headers"))
    found = kernel.read(tmp_path, NEXT)
    assert (found.version, found.build_id, found.running) == (LATER, "", False)
    assert kernel.read(tmp_path).version == VERSION


@pytest.mark.parametrize("file", ["utsversion.h", "compile.h"])
def test_without_an_image_its_headers_tell_it(tmp_path: Path, file: str) -> None:
    root = host(tmp_path, NEXT)
    make_tree(root, headers_files(NEXT, LATER, file))
    assert kernel.read(tmp_path, NEXT).version == LATER


def test_headers_of_another_kernel_tell_nothing(tmp_path: Path) -> None:
    root = host(tmp_path, NEXT)
    make_tree(root, headers_files(RUNNING, VERSION))
    make_tree(root, {f"lib/modules/{NEXT}/build": f"-> /usr/src/linux-headers-{RUNNING}"})
    assert kernel.read(tmp_path, NEXT).version == ""


def test_an_image_beside_the_modules_counts_too(tmp_path: Path) -> None:
    root = host(tmp_path, NEXT)
    (root / f"lib/modules/{NEXT}/vmlinuz").write_bytes(boot_image(NEXT, LATER))
    assert kernel.read(tmp_path, NEXT).version == LATER


def damaged_images() -> dict[str, bytes]:
    whole = boot_image(NEXT, LATER)
    offset = struct.pack("<H", 0xFFFF)
    return {
        "another release's": boot_image(RUNNING, LATER),
        "arm64's, packed": b"\x1f\x8b\x08" + bytes(40000),
        "empty": b"",
        "cut in the header": whole[:0x206],
        "cut before the string": whole[:0x3400],
        "cut in the string": whole[:0x3410],
        "an offset that leads nowhere": whole[:0x20E] + offset + whole[0x210:],
        "no version in the string": boot_image(NEXT, "not one"),
    }


@pytest.mark.parametrize("name", damaged_images())
def test_what_is_no_image_of_that_kernel_tells_nothing(tmp_path: Path, name: str) -> None:
    root = host(tmp_path, NEXT)
    (root / "boot").mkdir()
    (root / f"boot/vmlinuz-{NEXT}").write_bytes(damaged_images()[name])
    assert kernel.read(tmp_path, NEXT).version == ""


@given(st.binary(max_size=2000))
def test_no_file_breaks_the_reader_of_images(data: bytes) -> None:
    image = Path("/dev/shm/driverctr-test-image") if Path("/dev/shm").is_dir() else Path("/tmp/driverctr-test-image")
    image.write_bytes(b"\0" * 0x202 + b"HdrS" + data)
    try:
        assert kernel.version_of_image(image, "6.1") == ""
    finally:
        image.unlink()


def test_a_builder_with_brackets_in_its_name_is_read_past(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(boot_image("6.8.0-45-generic", "#45-Ubuntu SMP (x)", by="buildd (lcy02)@host"))
    assert kernel.version_of_image(image, "6.8.0-45-generic") == "#45-Ubuntu SMP (x)"


def test_another_build_under_the_name_of_the_running_kernel_is_another_kernel(tmp_path: Path) -> None:
    root = host(tmp_path, RUNNING)
    assert kernel.read_installed(tmp_path, RUNNING).running
    place_image(root, RUNNING, VERSION)
    assert kernel.read_installed(tmp_path, RUNNING).running
    place_image(root, RUNNING, LATER)
    found = kernel.read_installed(tmp_path, RUNNING)
    assert (found.version, found.build_id, found.running) == (LATER, "", False)
    make_tree(root, headers_files(NEXT, VERSION))
    assert kernel.read_installed(tmp_path, NEXT) == kernel.read(tmp_path, NEXT)


def test_headers_alone_make_no_other_kernel_of_the_running_one(tmp_path: Path) -> None:
    root = host(tmp_path, RUNNING)
    make_tree(root, headers_files(RUNNING, LATER))
    assert kernel.read_installed(tmp_path, RUNNING).running


AGES = [
    "5.15.0-100-generic",
    "6.1.0-9-amd64",
    "6.1.0-56-amd64",
    "6.1.0-56-cloud-amd64",
    "6.1.0-57-amd64",
    "6.8.0-rc3",
    "6.8.0",
    "6.8.0-45-generic",
    "6.12.94~rc1+deb13-amd64",
    "6.12.94+deb13-amd64",
    "6.12.117+deb13-amd64",
    "10.0-427.el11.x86_64",
]


def test_kernel_releases_sort_by_age() -> None:
    shuffled = random.Random(1).sample(AGES, len(AGES))
    assert sorted(shuffled, key=lambda text: KernelRelease(text).order) == AGES


@given(st.lists(st.from_regex(r"[0-9]{1,3}\.[0-9]{1,3}[\w.+~-]{0,20}", fullmatch=True), max_size=6))
def test_any_releases_have_an_order(texts: list[str]) -> None:
    kept = [KernelRelease(text) for text in texts if text.isascii()]
    assert len(sorted(kept, key=lambda release: release.order)) == len(kept)


def test_the_hosts_kernels_are_told_the_newest_first_without_what_removed_ones_left(paths: Paths) -> None:
    root = host(paths.root, "6.1.0-9-amd64", NEXT, RUNNING)
    make_tree(
        root,
        {
            "lib/modules/6.1.0-8-amd64/updates/dkms/nvidia.ko": "",
            "lib/modules/6.1.0-8-amd64/modules.dep": "",
            "lib/modules/6.1.0-7-amd64/kernel": None,
            "lib/modules/6.2.0/kernel/fs/ext4.ko": "",
            "lib/modules/not a kernel/modules.builtin": "",
            "lib/modules/6.3.0": "a file",
        },
    )
    assert releases(paths) == ["6.2.0", NEXT, RUNNING, "6.1.0-9-amd64"]


def test_only_kernels_newer_than_the_running_one_are_yet_to_come(paths: Paths) -> None:
    root = host(paths.root, "6.1.0-9-amd64", RUNNING, NEXT, "6.12.1+deb13-amd64")
    assert upcoming(paths) == ["6.12.1+deb13-amd64", NEXT]
    place_image(root, RUNNING, LATER)
    assert upcoming(paths) == ["6.12.1+deb13-amd64", NEXT, RUNNING]


def test_our_own_module_tree_is_no_kernel_of_the_host(paths: Paths) -> None:
    make_tree(
        paths.root,
        {
            "proc/self/mountinfo": "1 0 0:1 / / rw - overlay overlay rw\n",
            "proc/sys/kernel/osrelease": RUNNING,
            f"lib/modules/{RUNNING}/modules.builtin": "",
        },
    )
    assert releases(paths) == []
    make_tree(paths.root, {f"{hostroot.ASIDE}/lib/modules/{NEXT}/modules.builtin": ""})
    assert releases(paths) == [NEXT]


def test_a_mounted_module_folder_is_the_hosts(paths: Paths) -> None:
    folder = paths.root / "lib/modules"
    make_tree(
        paths.root,
        {
            "proc/self/mountinfo": f"1 0 0:1 / / rw - overlay o rw\n2 1 0:2 / {folder} ro - ext4 /dev/a rw\n",
            f"lib/modules/{NEXT}/modules.builtin": "",
            f"lib/modules/{RUNNING}/modules.builtin": "",
        },
    )
    assert releases(paths) == [NEXT, RUNNING]


def test_the_mark_changes_with_the_kernel_and_with_its_headers_and_not_by_itself(paths: Paths) -> None:
    root = host(paths.root, NEXT)
    (found,) = installed.read(paths)
    assert found.place.reach is hostroot.Reach.PROCESS
    marks = [found.mark, found.mark]
    make_tree(root, headers_files(NEXT, LATER))
    marks.append(found.mark)
    place_image(root, NEXT, LATER)
    marks.append(found.mark)
    (root / f"lib/modules/{NEXT}/modules.builtin").write_text("kernel/fs/ext4.ko\n")
    marks.append(found.mark)
    assert marks[0] == marks[1] and len(set(marks)) == 4


def test_a_host_that_cannot_be_read_is_told(paths: Paths) -> None:
    with pytest.raises(DriverError):
        host(paths.root, NEXT, running="")
        installed.upcoming(paths)
