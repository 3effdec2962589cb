"""`driverctr doctor`: the checks, or with --bundle everything that a bug report needs."""

import argparse
import os
import sys
import time
from pathlib import Path

from driverctr import bundle, doctor, instance, survey, vantage
from driverctr import config as settings
from driverctr.conceal import printed
from driverctr.errors import Code, DriverError
from driverctr.plan import Plan, make
from driverctr.records import replace
from driverctr.steps import Tools
from driverctr.terminal import width_of

STANDARD_OUTPUT = "-"


def run(tools: Tools, arguments: argparse.Namespace) -> int:
    """Print every check, exit status that of the first refusal or 0; a bundle is 0 once it is written."""
    tools = take_vantage(tools, arguments)
    if arguments.bundle is not None:
        return write_bundle(tools, arguments)
    made = look(tools, dict(getattr(arguments, "refused", {})))
    told = doctor.collect(made) if arguments.json else doctor.describe(made, width_of(sys.stdout))
    sys.stdout.write(printed(told))
    return doctor.exit_status(made)


def take_vantage(tools: Tools, arguments: argparse.Namespace) -> Tools:
    """From the mounted driver root (chroot) all is as the driver container has it, its settings too; what is secret
    among those is concealed, from wherever we look."""
    paths = vantage.of_image(tools.paths.root)
    instance.learn_secrets(paths)
    tools = replace(tools, paths=paths)
    if not paths.are_elsewhere():
        return tools
    try:
        arguments.given = instance.environment(paths)
    except DriverError:  # it is dead: ours have to do
        return tools
    config, arguments.refused = settings.load_valid(arguments.given)
    return replace(tools, config=config)


def look(tools: Tools, refused: dict[str, DriverError]) -> Plan:
    """The plan with its checks, that of the settings first; raises DriverError as the survey does.

    A driver version that the image does not hold is a setting that is not valid here.
    """
    config = tools.config
    try:
        facts = survey.survey(tools.paths, config)
    except DriverError as error:
        if error.code is not Code.BAD_SETTING or config.driver_version is None:
            raise
        config = replace(config, driver_version=None)
        facts = survey.survey(tools.paths, config)
        refused["DRIVER_VERSION"] = error
    return doctor.with_settings(make(config, facts), refused.values())


def write_bundle(tools: Tools, arguments: argparse.Namespace) -> int:
    """Gather everything, whatever fails of it, and write it to the file or standard output that was named."""
    from driverctr import bundlenode, bundleparts

    to_stdout = arguments.bundle == STANDARD_OUTPUT
    if to_stdout and sys.stdout.isatty():
        raise DriverError(
            Code.BAD_USAGE,
            "--bundle -: standard output is a terminal",
            "Send it to a file: driverctr doctor --bundle - > bundle.tar.gz",
        )
    refused, given = getattr(arguments, "refused", {}), getattr(arguments, "given", {})
    scene = bundleparts.Scene(tools, tuple(refused.values()), given)
    members = bundle.gather((*bundleparts.PARTS, *bundlenode.PARTS), scene)
    now = time.time()
    folder = f"driverctr-{os.uname().nodename}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}"
    if to_stdout:
        bundle.pack(members, folder, now, sys.stdout.buffer)
        return 0
    path = Path(arguments.bundle)
    bundle.save(members, folder, now, path)
    lacking = [member.name for member in members if member.note.startswith(bundle.FAILED)]
    failed = f"{bundle.FAILED}, see {bundle.INDEX}: {', '.join(lacking)}\n" if lacking else ""
    sys.stdout.write(printed(f"{path}: {len(members)} parts, {path.stat().st_size / 1e3:.0f} kB\n{failed}"))
    return 0
