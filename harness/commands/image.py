"""`python -m harness image`: build the image, put its context or its root file system somewhere, build modules."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from harness import image, imagefiles, precompiled


def main(argv: Sequence[str]) -> int:
    """Do what the arguments ask; the result, a tag or a path, is the only line on standard output."""
    parser = argparse.ArgumentParser(prog="dev image", description=__doc__)
    parser.set_defaults(driver_version=image.DEFAULT_DRIVER)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--driver-version", default=image.DEFAULT_DRIVER, help="default: %(default)s")
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    built = actions.add_parser("build", parents=[common], help="build the image and print its tag (the default)")
    built.add_argument("--precompiled", metavar="KERNEL", help="with the modules for this kernel release baked in")
    built.add_argument("--modules", type=Path, metavar="DIR", help="these modules, made (and signed) elsewhere")
    actions.add_parser("rootfs", parents=[common], help="print the folder with its root file system")
    modules = actions.add_parser("modules", parents=[common], help="build the modules for a kernel, print the folder")
    modules.add_argument("release", help="kernel release, as uname -r prints it")
    modules.add_argument("--type", choices=("proprietary", "open"), default="proprietary")
    context = actions.add_parser("context", help="fill a folder for a docker build of your own")
    context.add_argument("folder", type=Path)
    chosen = parser.parse_args(argv)
    print(_result(chosen))
    return 0


def _result(chosen: argparse.Namespace) -> str | Path:
    if chosen.action == "context":
        image.context(chosen.folder)
        return Path(chosen.folder)
    if chosen.action == "rootfs":
        return imagefiles.export_rootfs(image.build(chosen.driver_version))
    if chosen.action == "modules":
        return image.real_modules(chosen.release, chosen.type, chosen.driver_version)
    if chosen.action == "build" and chosen.precompiled:
        precompiled.build(chosen.precompiled, chosen.driver_version, modules=chosen.modules)
        return f"{image.REPOSITORY_NAME}:{precompiled.tag(chosen.precompiled, chosen.driver_version)}"
    return image.build(chosen.driver_version)
