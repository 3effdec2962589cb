"""`python -m harness image`: build an image, put its context or its root file system somewhere, build modules."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import flavours, image, imagefiles, precompiled
from harness.bases import Base
from harness.errors import HarnessError

DEFAULTS: dict[str, Any] = {
    "driver_version": image.DEFAULT_DRIVER,
    "flavour": flavours.DEBIAN.name,
    "base": "",
    "build_arg": [],
    "precompiled": "",
    "baked": None,
}


def main(argv: Sequence[str]) -> int:
    """Do what the arguments ask; the result, a tag or a path, is the only line on standard output."""
    common = _common()
    parser = argparse.ArgumentParser(prog="dev image", description=__doc__, parents=[common])
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    actions.add_parser("build", parents=[common], help="build the image and print its tag (the default)")
    actions.add_parser("rootfs", parents=[common], help="print the folder with its root file system")
    modules = actions.add_parser("modules", parents=[common], help="build the modules for a kernel, print the folder")
    modules.add_argument("release", help="kernel release, as uname -r prints it")
    modules.add_argument("--type", choices=("proprietary", "open"), default="proprietary")
    context = actions.add_parser("context", parents=[common], help="fill a folder for a docker build of your own")
    context.add_argument("folder", type=Path)
    chosen = argparse.Namespace(**{**DEFAULTS, **vars(parser.parse_args(argv))})
    print(_result(chosen, flavours.FLAVOURS[chosen.flavour]))
    return 0


def _common() -> argparse.ArgumentParser:
    """Options that may stand before the action and after it: without a default, which would undo the former."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--driver-version", help=f"default: {image.DEFAULT_DRIVER}")
    common.add_argument("--flavour", choices=sorted(flavours.FLAVOURS), help=f"default: {flavours.DEBIAN.name}")
    common.add_argument("--base", metavar="IMAGE", help="start from this image as it is, not from one made for tests")
    common.add_argument("--build-arg", metavar="NAME=VALUE", action="append", help="with --base; may be repeated")
    common.add_argument("--precompiled", metavar="KERNEL", help="with the modules for this kernel release baked in")
    common.add_argument("--baked", type=Path, metavar="DIR", help="these modules, made (and signed) elsewhere")
    return common


def _result(chosen: argparse.Namespace, flavour: flavours.Flavour) -> str | Path:
    version = chosen.driver_version
    if chosen.action == "context":
        image.context(chosen.folder, flavour)
        return Path(chosen.folder)
    if chosen.action == "modules":
        if flavour != flavours.DEBIAN or chosen.base:
            raise HarnessError("modules are built with Debian's image here", "Leave out --flavour and --base")
        return image.real_modules(chosen.release, chosen.type, version)
    if chosen.precompiled:
        tag = precompiled.build(chosen.precompiled, version, flavour, chosen.baked, _base(chosen))
    else:
        tag = image.build(version, flavour=flavour, base=_base(chosen))
    return imagefiles.export_rootfs(tag) if chosen.action == "rootfs" else tag


def _base(chosen: argparse.Namespace) -> Base | None:
    """Return the user's own base with its build arguments, None for the one of tests."""
    if chosen.build_arg and not chosen.base:
        raise HarnessError("--build-arg goes with --base", "What tests build on has build arguments of its own")
    arguments = [text.partition("=") for text in chosen.build_arg]
    wrong = [name for name, separator, _ in arguments if not separator or not name]
    if wrong:
        raise HarnessError(f"--build-arg {wrong[0]}: no NAME=VALUE")
    return Base(chosen.base, {name: value for name, _, value in arguments}) if chosen.base else None
