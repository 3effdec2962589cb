"""The archive that the guest boots from, as cpio(1) reads it; here, since only the machines' tests ask for cpio."""

import subprocess
from pathlib import Path

from harness import initramfs
from harness.initramfs import Entry


def test_archive_is_read_by_cpio(tmp_path: Path) -> None:
    files = {"d": Entry(initramfs.FOLDER), "d/f": Entry(initramfs.PROGRAM, b"abc")}
    files["l"] = Entry(initramfs.SYMLINK, b"d/f")
    subprocess.run(["cpio", "-id", "--quiet"], cwd=tmp_path, input=initramfs.archive(files), check=True)
    assert (tmp_path / "l").read_bytes() == b"abc"
    assert (tmp_path / "d/f").stat().st_mode & 0o777 == 0o755
