"""Module parameters: the user's /drivers/<module>.conf → modprobe's configuration → what the kernel says it took."""

import re
from collections.abc import Collection, Iterable, Mapping

from driverctr.errors import Code, DriverError
from driverctr.facts import modules
from driverctr.files import write_atomic
from driverctr.paths import Paths

DEFAULTS: Mapping[str, tuple[str, ...]] = {
    "nvidia": ("NVreg_CoherentGPUMemoryMode=driver",),
}
"""As NVIDIA's container sets them (its _get_module_params): GH200's memory must not become a NUMA node."""


def asked(paths: Paths, module: str, known: Collection[str]) -> tuple[str, ...]:
    """The parameters for a module: our defaults where the module lists them (`known`), then the user's, as written.

    Raises DriverError (bad-setting).
    """
    defaults = DEFAULTS.get(module, ())
    ours = tuple(word for word in defaults if word.partition("=")[0] in known)
    return (*ours, *user_words(paths, module))


def user_words(paths: Paths, module: str) -> tuple[str, ...]:
    """The lines of the user's /drivers/<module>.conf; raises DriverError (bad-setting) for a file that is not text."""
    file = paths.user_settings / f"{module}.conf"
    try:
        text = file.read_text() if file.is_file() else ""
        if "\0" in text:
            raise ValueError("it contains a NUL byte")
    except (OSError, ValueError) as error:
        raise DriverError(
            Code.BAD_SETTING,
            f"{file} cannot be read as text: {error}",
            "Give one module parameter a line, such as NVreg_EnableGpuFirmware=0",
        ) from error
    return tuple(line.strip() for line in text.splitlines() if line.strip())


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
    name = module.replace("-", "_")
    actual = modules.read_parameters(paths, name)
    if name == "nvidia":
        actual |= modules.read_driver_parameters(paths)
    return [
        f"{parameter}: asked {value}, is {actual[parameter]}"
        for parameter, value in split(words).items()
        if parameter in actual and not _same(value, actual[parameter])
    ]


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
    parts = [part.replace('"', "") for part in re.findall(r'(?:[^\s"]|"[^"]*")+', text)]
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
    for base, pattern in ((16, "-?0[xX][0-9a-fA-F]+"), (8, "-?0[0-7]*"), (10, "-?[1-9][0-9]*")):
        if re.fullmatch(pattern, text):
            return int(text, base)
    return None
