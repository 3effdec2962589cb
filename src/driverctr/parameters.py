"""Module parameters: the user's /drivers/<module>.conf → modprobe's configuration → what the kernel says it took."""

import re
from collections.abc import Collection, Iterable, Mapping

from driverctr.deferred import pattern
from driverctr.errors import Code, DriverError
from driverctr.facts import modules
from driverctr.files import write_atomic
from driverctr.log import Log
from driverctr.paths import Paths
from driverctr.records import frozen

LARGEST_FILE = 64 << 10
"""Bytes; all parameters of all modules of a driver, spelled out, take less than a tenth of it."""

NAME = pattern(r"[A-Za-z_][\w.-]*", re.ASCII)
BOOLEAN = pattern("[yt1nf0]|on|of", re.IGNORECASE)
"""How a boolean begins; the rest is not looked at (Linux, lib/kstrtox.c kstrtobool)."""

BITS = {"byte": 8, "short": 16, "ushort": 16, "int": 32, "uint": 32, "long": 64, "ulong": 64, "ullong": 64}
"""Types of linux/moduleparam.h whose values are whole numbers; arrays and texts are left to the kernel."""


@frozen
class Default:
    """A parameter that we set: as modprobe takes it, and the first driver branch whose module has it."""

    word: str
    branch: int

    @property
    def name(self) -> str:
        """Of the parameter."""
        return self.word.partition("=")[0]


DEFAULTS: Mapping[str, tuple[Default, ...]] = {
    "nvidia": (Default("NVreg_CoherentGPUMemoryMode=driver", 580),),
}
"""As NVIDIA's container sets them (its _get_module_params): GH200's memory must not become a NUMA node.

Drivers before that branch do without, as they always did: to refuse them would take their GPUs away. One from that
branch on which lacks it is told of, and refused neither: it means something on nodes with coherent memory only.
"""


def asked(paths: Paths, module: str, known: Collection[str]) -> tuple[str, ...]:
    """The parameters for a module: our defaults where the module lists them (`known`), then the user's, as written.

    Raises DriverError (bad-setting).
    """
    ours = tuple(default.word for default in DEFAULTS.get(module, ()) if default.name in known)
    return (*ours, *user_words(paths, module))


def lacking(module: str, version: str, known: Collection[str]) -> tuple[str, ...]:
    """A sentence for each default of ours that a module of this driver version should have and has not."""
    return tuple(
        f"{module} {version} has no parameter {default.name}, as drivers from branch {default.branch} on should: "
        f"{default.word} is left out"
        for default in DEFAULTS.get(module, ())
        if default.name not in known and int(version.split(".")[0]) >= default.branch
    )


def user_words(paths: Paths, module: str) -> tuple[str, ...]:
    """The lines of the user's /drivers/<module>.conf, without those that begin with #.

    Raises DriverError (bad-setting) for what is no small text file with one parameter or more a line.
    """
    file = paths.user_settings / f"{module}.conf"
    try:
        if not file.exists():
            return ()
        size = file.stat().st_size
        if size > LARGEST_FILE:
            raise ValueError(f"it has {size} bytes, and at most {LARGEST_FILE} are read")
        text = file.read_text(encoding="utf-8")
        lines = (line.strip() for line in text.splitlines())
        words = tuple(line for line in lines if line and not line.startswith("#"))
        for line in words:
            _check_line(line)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DriverError(
            Code.BAD_SETTING,
            f"{file} cannot be used: {reason}",
            "Give one module parameter a line, such as NVreg_EnableGpuFirmware=0, or take the file away",
        ) from error
    return words


def _check_line(line: str) -> None:
    """Raise ValueError for what modprobe or the kernel would read otherwise than it was meant."""
    shown = repr(line if len(line) < 100 else f"{line[:100]}...")
    if not line.replace("\t", " ").isprintable():
        raise ValueError(f"it contains a NUL or another control character: {shown}")
    if line.count('"') % 2:
        raise ValueError(f"a quotation mark is not closed: {shown}")
    if line.endswith("\\"):
        raise ValueError(f"a backslash at the end would join two lines: {shown}")
    for name in split([line]):
        if not NAME.fullmatch(name):
            raise ValueError(f"{name[:100]!r} is not the name of a parameter")


def check(module: str, words: Iterable[str], known: Mapping[str, str], *, refuse_unknown: bool, log: Log) -> None:
    """Compare what the user asks with the module file's own list of parameters and their types.

    Raises DriverError (bad-parameter) for a value that the kernel would refuse, and for a name the module does not
    know with `refuse_unknown`; otherwise that is a warning, as the kernel ignores it (linux/moduleparam.h).
    """
    for name, value in split(words).items():
        if name not in known:
            import difflib

            told = f"{module} has no parameter {name} (asked {name}={value[:100]})"
            close = difflib.get_close_matches(name, known, n=3)
            remedy = f"Correct or remove it in /drivers/{module}.conf" + (
                f"; near: {', '.join(close)}" if close else ""
            )
            if refuse_unknown:
                raise DriverError(Code.BAD_PARAMETER, told, remedy)
            log.warning(f"{told}: the kernel will ignore it. {remedy}", code=Code.BAD_PARAMETER.value)
        elif wanted := _refusal(known[name], value):
            raise DriverError(
                Code.BAD_PARAMETER,
                f"{module}: {name}={value[:100]!r} is not {wanted}",
                f"Correct it in /drivers/{module}.conf, or leave it out",
            )


def _refusal(kind: str, value: str) -> str:
    """What a value of this type must be, where it is not (Linux, kernel/params.c); empty where it may be right."""
    if kind in ("bool", "invbool") and not BOOLEAN.match(value):
        return "a boolean (Y or N)"
    if kind in BITS:
        lowest, highest = (-(2 ** (BITS[kind] - 1)), 2 ** (BITS[kind] - 1) - 1)
        if kind[0] in "ub":
            lowest, highest = 0, 2 ** BITS[kind] - 1
        number = _number(value.removeprefix("+"))
        if number is None or not lowest <= number <= highest:
            return f"a whole number from {lowest} to {highest} ({kind})"
    return ""


def write(paths: Paths, module: str, words: Iterable[str]) -> None:
    """Write /etc/modprobe.d/<module>.conf with one `options` line, or take it away where nothing is asked."""
    file = paths.modprobe_d / f"{module}.conf"
    line = " ".join(words)
    if line:
        write_atomic(file, f"options {module} {line}\n")
    else:
        file.unlink(missing_ok=True)


def differing(paths: Paths, module: str, words: Iterable[str]) -> list[str]:
    """What was asked and is not so, each as "name: asked X, is Y"; what the kernel does not show counts as so."""
    asked_values = split(words)
    actual = shown(paths, module, asked_values) if asked_values else {}
    return [
        f"{parameter}: asked {value}, is {actual[parameter]}"
        for parameter, value in asked_values.items()
        if parameter in actual and not _same(value, actual[parameter])
    ]


def shown(paths: Paths, module: str, wanted: Collection[str] | None = None) -> dict[str, str]:
    """The parameters of a loaded module that the kernel shows, in sysfs or in NVIDIA's own file; or those `wanted`."""
    name = modules.kernel_name(module)
    actual = modules.read_parameters(paths, name, wanted)
    return actual | modules.read_driver_parameters(paths) if name == modules.CORE else actual


def split(words: Iterable[str]) -> dict[str, str]:
    """`a=1 b="x y"` → {"a": "1", "b": "x y"}; a name alone means 1; the last of a name counts.

    White space divides except between double quotes, and no other mark has a meaning (Linux, lib/cmdline.c next_arg).
    Raises DriverError (bad-setting) for a quotation mark that is not closed.
    """
    text = " ".join(words)
    if text.count('"') % 2:
        shown = text if len(text) < 200 else f"{text[:200]}..."
        raise DriverError(
            Code.BAD_SETTING, f"module parameters {shown!r}: No closing quotation", "Close the quotation mark"
        )
    if '"' in text:
        parts = [part.replace('"', "") for part in re.findall(r'(?:[^\s"]|"[^"]*")+', text)]
    else:
        parts = text.split()
    return {name: value if equals else "1" for name, equals, value in (part.partition("=") for part in parts)}


def wants_no_firmware(words: Iterable[str]) -> bool:
    """Whether GSP firmware is switched off (NVreg_EnableGpuFirmware=0, alone on its line or not)."""
    return _same(split(words).get("NVreg_EnableGpuFirmware", ""), "0")


def _same(asked_value: str, actual: str) -> bool:
    """Equal as text without quotes, as numbers of any base, or as the kernel's booleans (Y, N)."""
    booleans = {"y": "1", "n": "0"}
    one, other = (booleans.get(text.lower(), text) for text in (asked_value.strip('"'), actual.strip('"')))
    if one == other:
        return True
    first, second = _number(one), _number(other)
    return first is not None and second is not None and (first - second) % 2**32 == 0


def _number(text: str) -> int | None:
    """A number as the kernel reads it (kstrtouint with base 0): a leading 0 means octal, as in a file mode."""
    for base, digits in ((16, "-?0[xX][0-9a-fA-F]+"), (8, "-?0[0-7]*"), (10, "-?[1-9][0-9]{,99}")):
        if re.fullmatch(digits, text):
            return int(text, base)
    return None
