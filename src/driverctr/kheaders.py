"""The headers that the running kernel itself offers, /sys/kernel/kheaders.tar.xz (CONFIG_IKHEADERS).

What kernel/gen_kheaders.sh of Linux 5.4 to 6.12 puts there are header files alone, for tracing: no Makefile, none of
scripts/, no configuration, no Module.symvers. Kernels of some vendors have all a build needs.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from driverctr.errors import Code, DriverError
from driverctr.facts.hostroot import HostRoot
from driverctr.facts.kernel import compares_symbols
from driverctr.files import read_text

if TYPE_CHECKING:
    import tarfile

ARCHIVE = Path("sys/kernel/kheaders.tar.xz")

NEEDED = (
    "Makefile",
    "scripts/Makefile.build",
    "scripts/basic/fixdep",
    "scripts/mod/modpost",
    "include/config/auto.conf",
)
"""What Kbuild needs beside header files (Documentation/kbuild/modules.rst)."""

SYMVERS = "Module.symvers"
COMPRESSED = ("gz", "xz")


def unpack(root: Path, release: str, places: tuple[HostRoot, ...], into: Path) -> Path:
    """The headers of the running kernel as a build folder; raises DriverError (headers-missing) saying what lacks."""
    import lzma
    import tarfile

    archive = root / ARCHIVE
    running = read_text(root / "proc/sys/kernel/osrelease") or ""
    if running != release:
        raise DriverError(Code.HEADERS_MISSING, f"it is of the kernel that runs, {running or 'unknown'}")
    if not archive.is_file():
        raise DriverError(Code.HEADERS_MISSING, why_none(release, places))
    try:
        with tarfile.open(archive, "r:xz") as opened:
            members = opened.getmembers()
            names = {member.name.removeprefix("./") for member in members}
            if lacking := [name for name in NEEDED if name not in names]:
                raise DriverError(
                    Code.HEADERS_MISSING,
                    f"it holds {len(names)} files, and of what Kbuild needs it lacks {', '.join(lacking)}",
                )
            into.mkdir(parents=True)
            opened.extractall(into, [member for member in members if is_inside(member)])
    except (OSError, tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise DriverError(Code.HEADERS_MISSING, f"it cannot be unpacked: {error}") from error
    if not (into / SYMVERS).is_file():
        add_symbols(into, release, places)
    return into


def is_inside(member: "tarfile.TarInfo") -> bool:
    """Whether a member stays below the folder it is unpacked into."""
    parts = Path(member.name).parts
    return not member.name.startswith("/") and ".." not in parts and (member.isfile() or member.isdir())


def why_none(release: str, places: tuple[HostRoot, ...]) -> str:
    """Why the kernel offers none: its module is not loaded, or it has none."""
    for place in places:
        folder = place.path / "lib/modules" / release / "kernel/kernel"
        if any(folder.glob("kheaders.ko*")):
            return "the kernel's module kheaders is not loaded: run `modprobe kheaders` on the host"
    return "the kernel has none (it was built without CONFIG_IKHEADERS)"


def add_symbols(build: Path, release: str, places: tuple[HostRoot, ...]) -> None:
    """Give headers the versions of the kernel's symbols, from where the host keeps them.

    RHEL has symvers.gz beside its modules and in /boot. A kernel without CONFIG_MODVERSIONS compares none. Raises
    DriverError (headers-missing) where the kernel compares them and they are nowhere.
    """
    import lzma

    tree, boot = Path("/lib/modules") / release, Path("/boot")
    names = [tree / SYMVERS, *(tree / f"symvers.{kind}" for kind in COMPRESSED)]
    names += [boot / f"symvers-{release}.{kind}" for kind in COMPRESSED]
    for place in places:
        for name in names:
            try:
                (build / SYMVERS).write_bytes(decompressed(place.resolve(name)))
            except (OSError, DriverError, lzma.LZMAError, EOFError):
                continue
            return
    if compares_symbols(build):
        raise DriverError(
            Code.HEADERS_MISSING,
            f"it lacks {SYMVERS}, without which no module fits this kernel (CONFIG_MODVERSIONS), and the host has it "
            f"neither in {tree} nor in /boot",
        )


def decompressed(file: Path) -> bytes:
    """The content of a file that gzip or xz may have packed; raises OSError, EOFError or lzma.LZMAError."""
    import gzip
    import lzma

    data = file.read_bytes()
    if file.suffix == ".gz":
        return gzip.decompress(data)
    return lzma.decompress(data) if file.suffix == ".xz" else data
