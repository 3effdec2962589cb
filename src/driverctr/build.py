"""Modules from source: a private copy, our patches, one make."""

import re
from dataclasses import dataclass
from pathlib import Path

from driverctr.conceal import conceal
from driverctr.errors import Code, DriverError
from driverctr.facts.compiler import Compiler
from driverctr.headers import Headers
from driverctr.log import Log
from driverctr.patches import Patch
from driverctr.progress import counted
from driverctr.records import frozen
from driverctr.run import Runner
from driverctr.userspace.image import Source

MODULES = ("nvidia", "nvidia-uvm", "nvidia-modeset", "nvidia-peermem")
"""What NVIDIA's container loads, and peermem, which its sidecar does; nobody there loads nvidia-drm."""

BUILD_LIMIT = 4 * 3600.0
COPY_LIMIT = 600.0
STRIP_LIMIT = 300.0
"""Seconds; generous, since a build under emulation is 17 times slower."""

COMPILED = re.compile(r"^  CC \[M\]  ")
"""A line Kbuild prints for each object it compiles (scripts/Makefile.build, quiet_cmd_cc_o_c)."""

COMPILER_ERROR = re.compile(
    r"^(?P<file>[^\s:]+):(?P<line>\d+):(?:\d+:)? (?P<text>(?:fatal error|error|internal compiler error): .*)$"
)
"""A compiler's word for an error; "error: " alone says nothing and is left out of what we tell."""

OUT_OF_MEMORY = re.compile(
    r"Killed signal terminated program|signal 9\b|\bKilled\b|\bError 137$"
    r"|Cannot allocate memory|virtual memory exhausted|out of memory allocating"
)
DISK_FULL = re.compile(r"No space left on device")
SANITY = re.compile(r"^(?P<text>The kernel you are installing for is .*|\*\*\* Failed .* sanity check)")
"""NVIDIA's conftest.sh refuses the kernel or the compiler as a whole."""

TOOL_ERROR = re.compile(
    r"^(?:(?:ERROR|FATAL): modpost: |error: |Error: unknown conftest|make(?:\[\d+\])?: \*\*\* No rule"
    r"|/bin/sh: .*: not found|\S*\bld(?:\.\w+)?: |\S+: internal compiler error: |\S+: fatal error: )"
)


@frozen
class BuildRequest:
    """What to build; `scratch` is ours alone and empty, `log_path` receives all that make says."""

    source: Source
    headers: Headers
    compiler: Compiler
    jobs: int
    scratch: Path
    log_path: Path
    patches: tuple[Patch, ...] = ()
    modules: tuple[str, ...] = MODULES


@dataclass
class FirstError:
    """Keeps the first line that says why a build failed; a compiler's word goes before any other tool's."""

    tree: Path
    compiler: str = ""
    tool: str = ""
    sanity: str = ""
    out_of_memory: bool = False
    disk_full: bool = False

    def see(self, line: str) -> None:
        """Look at a line of make's output."""
        if not self.compiler and (found := COMPILER_ERROR.match(line)):
            file = found.group("file").removeprefix(f"{self.tree}/")
            self.compiler = f"{file}:{found.group('line')}: {found.group('text').removeprefix('error: ')}"
        if not self.sanity and (found := SANITY.match(line)):
            self.sanity = found.group("text").rstrip("!")
        if not self.tool and TOOL_ERROR.match(line):
            self.tool = line.strip()
        self.out_of_memory = self.out_of_memory or bool(OUT_OF_MEMORY.search(line))
        self.disk_full = self.disk_full or bool(DISK_FULL.search(line))

    @property
    def text(self) -> str:
        """The reason, from the one that knows most."""
        return self.sanity or self.compiler or self.tool


def build(request: BuildRequest, runner: Runner, log: Log) -> dict[str, Path]:
    """Build the modules and return their files, stripped of debug info, by name; they lie in `scratch`.

    Raises DriverError (build-failed, no-memory, no-space) with the first error, its file and line, and the log's path.
    """
    tree = request.scratch / "source"
    with log.step("build", f"{request.source.type} {request.source.version} for {request.headers.release}"):
        copy_source(request, tree, runner)
        for patch in request.patches:
            apply_patch(patch, tree, runner, log)
        run_make(request, tree, runner, log)
        return {name: strip(tree / f"{name}.ko", name, runner, request) for name in request.modules}


def copy_source(request: BuildRequest, tree: Path, runner: Runner) -> None:
    """One copy of the image's source, by reference where the file system can (cp(1) --reflink)."""
    if not (request.source.path / "Makefile").exists():
        raise DriverError(
            Code.BUILD_FAILED,
            f"the {request.source.type} module source {request.source.path} is missing or has no Makefile",
            "The image is incomplete: build it from the project's Dockerfile",
        )
    request.scratch.mkdir(parents=True, exist_ok=True)
    runner.run(["cp", "-a", "--reflink=auto", request.source.path, tree], limit=COPY_LIMIT)


def apply_patch(patch: Patch, tree: Path, runner: Runner, log: Log) -> None:
    """Apply one of our patches exactly; raises DriverError (build-failed) with patch(1)'s words."""
    log.info(f"build: patch {patch.file}: {patch.why}")
    result = runner.run(
        ["patch", "--batch", "--strip=1", "--fuzz=0", "--no-backup-if-mismatch", f"--input={patch.path}"],
        check=False,
        cwd=tree,
    )
    if result.status != 0:
        raise DriverError(
            Code.BUILD_FAILED,
            f"our patch {patch.file} does not fit the source: {result.words}",
            "The image's source is not the one the patch was made for; report it with the driver version",
        )


def make_arguments(request: BuildRequest) -> list[str]:
    """Words for make, as NVIDIA's Makefile and Kbuild know them.

    SYSSRC and SYSOUT name both halves of split headers (one alone breaks NVIDIA's conftest there). No debug info is
    made that would only be stripped (a tenth of the time), nor BTF, which asks for pahole and the kernel's vmlinux.
    """
    headers = request.headers
    return [
        f"KERNEL_UNAME={headers.release}",
        f"SYSSRC={headers.source_dir}",
        f"SYSOUT={headers.build_dir}",
        "IGNORE_CC_MISMATCH=1",
        f"CC={request.compiler.command}",
        *(["LLVM=1"] if request.compiler.command.startswith("clang") else []),
        "KCFLAGS=-g0",
        "CONFIG_DEBUG_INFO_BTF_MODULES=",
        f"NV_KERNEL_MODULES={' '.join(request.modules)}",
    ]


def run_make(request: BuildRequest, tree: Path, runner: Runner, log: Log) -> None:
    """Run make once, its output into the log file."""
    total = total_objects(request, tree, runner)
    first = FirstError(tree)
    request.log_path.parent.mkdir(parents=True, exist_ok=True)
    log.info(f"build: {request.jobs} jobs with {request.compiler.command}, output in {request.log_path}")
    with request.log_path.open("w") as output, counted(log, "build", "objects compiled", total) as one_more:

        def see(line: str) -> None:
            output.write(conceal(line) + "\n")
            if COMPILED.match(line):
                one_more()
            first.see(line)

        status = runner.stream(
            ["make", f"-j{request.jobs}", *make_arguments(request), "modules"], see, limit=BUILD_LIMIT, cwd=tree
        )
    if status != 0:
        raise failure(request, first, status)


def total_objects(request: BuildRequest, tree: Path, runner: Runner) -> int:
    """How many objects make will compile, by NVIDIA's own count; 0 where a source does not offer it.

    One more object a module is its `.mod.c`, which modpost writes.
    """
    if not (tree / "count-lines.mk").exists():
        return 0
    words = ["make", "--silent", "--file=count-lines.mk", *make_arguments(request), "count"]
    counts = dict(re.findall(r"(\w+):(\d+)", runner.run(words, check=False, cwd=tree).stdout))
    return int(counts.get("objects", 0)) + int(counts.get("modules", 0)) if counts.get("objects") else 0


def failure(request: BuildRequest, first: FirstError, status: int) -> DriverError:
    """The error a user can act upon."""
    what = f"the {request.source.type} modules {request.source.version} did not build for {request.headers.release}"
    if first.disk_full:
        return DriverError(
            Code.NO_SPACE,
            f"{what}: no space left on device in {request.scratch} or in /tmp; log in {request.log_path}",
            "Give the container's /var/tmp and /tmp 1 GB to spare",
        )
    if first.out_of_memory:
        return DriverError(
            Code.NO_MEMORY,
            f"{what}: out of memory with {request.jobs} jobs; log in {request.log_path}",
            "Give the container more memory or fewer jobs (--max-threads)",
        )
    reason = first.text or f"make ended with status {status}"
    return DriverError(
        Code.BUILD_FAILED,
        f"{what}: {reason}; log in {request.log_path}",
        "This source may not know this kernel: use a newer driver version, the other module type, or another kernel",
    )


def strip(path: Path, name: str, runner: Runner, request: BuildRequest) -> Path:
    """Strip debug info in place; symbols and the build-id stay."""
    if not path.exists():
        raise DriverError(Code.BUILD_FAILED, f"make succeeded but built no {name}.ko; log in {request.log_path}")
    runner.run(["strip", "--strip-debug", path], limit=STRIP_LIMIT)
    return path
