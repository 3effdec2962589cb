"""The compiler a kernel was built with, among those we have."""

import re
from pathlib import Path

from driverctr.errors import Code, DriverError
from driverctr.records import frozen
from driverctr.run import Runner

TOOLSETS = "opt/rh/gcc-toolset-*/root/usr/bin/gcc"
"""Where RHEL has compilers other than its own (Red Hat, "Developing C and C++ applications in RHEL", gcc-toolset)."""


@frozen
class Compiler:
    """A compiler on PATH, or of a toolset; `command` goes to make as CC."""

    command: str
    major: int


def family(text: str) -> str:
    """gcc or clang, by the words of CONFIG_CC_VERSION_TEXT."""
    return "clang" if "clang" in text.split("(")[0] else "gcc"


def major_of(text: str) -> int | None:
    """The major version in CONFIG_CC_VERSION_TEXT: 12 in `gcc-12 (Debian 12.2.0-14) 12.2.0`.

    The last dotted number outside brackets is the compiler's own; distributions put theirs before or after it.
    """
    outside = re.sub(r"\([^)]*\)", " ", text.split(", GNU ld")[0]) if "(" in text else text
    found = re.findall(r"(?<![\w.-])(\d+)\.\d+(?:\.\d+)?", outside)
    return int(found[0]) if found else None


def choose(cc_version_text: str, runner: Runner, package: str = "", root: Path = Path("/")) -> Compiler:
    """The compiler of the same family and major version as the kernel's, best by the kernel's name for it.

    `package` is what the distribution calls the wanted one. Raises DriverError (compiler-missing) with what was
    wanted and what there is.
    """
    kind, major = family(cc_version_text), major_of(cc_version_text)
    found = available(runner, kind, root)
    named = cc_version_text.split(" ")[0]
    fitting = [compiler for compiler in found if major in (None, compiler.major)]
    if fitting:
        return next((compiler for compiler in fitting if named.endswith(compiler.command)), fitting[0])
    wanted = f"{kind}-{major}" if major else kind
    has = ", ".join(f"{compiler.command} ({compiler.major})" for compiler in found) or f"no {kind} at all"
    raise DriverError(
        Code.COMPILER_MISSING,
        f"the kernel was built with {cc_version_text!r}, which asks for {wanted}; here is {has}",
        f"Put {package or wanted} into the image (its package list is a build argument)",
    )


def available(runner: Runner, kind: str, root: Path = Path("/")) -> list[Compiler]:
    """Compilers of a family on PATH; the plain name comes first, for kernels that ask for none in particular.

    Those of toolsets, which are no part of PATH, come last.
    """
    names = re.compile(rf"{kind}(-\d+)?")
    folders = [Path(folder) for folder in runner.environment.get("PATH", "").split(":") if folder]
    commands = {path.name for folder in folders if folder.is_dir() for path in folder.iterdir()}
    toolsets = sorted(map(str, root.glob(TOOLSETS))) if kind == "gcc" else []
    found: list[Compiler] = []
    for command in (*sorted(name for name in commands if names.fullmatch(name)), *toolsets):
        answer = runner.run([command, "-dumpversion"], check=False).stdout.strip()
        if major := re.match(r"\d+", answer):
            found.append(Compiler(command, int(major.group())))
    return found
