"""What each verb does, and what its failure means for the exit status."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from driverctr import config as settings
from driverctr import status
from driverctr.conceal import learn_text
from driverctr.config import Config
from driverctr.errors import Code, DriverError, Stopped, of_bug, of_os
from driverctr.explain import remedy_for
from driverctr.files import FULL
from driverctr.hashing import Hashes
from driverctr.kmod import Kmod
from driverctr.log import Log
from driverctr.paths import Paths
from driverctr.progress import screen
from driverctr.run import Runner
from driverctr.signals import Budget, Signals
from driverctr.steps import Tools
from driverctr.syslog import Syslog

if TYPE_CHECKING:
    import argparse

    from driverctr.log import Stream

    Verb = Callable[[Tools, argparse.Namespace], int]

LOOKING = {
    "status": False,
    "doctor": False,
    "who": False,
    "explain": False,
    "history": True,
    "store list": True,
    "store why": True,
}
"""Verbs that only look, and whether a setting that is not valid is told in the log: the first two show it themselves,
the next two ask for none."""


def run(words: Sequence[str], hashes: Hashes | None = None) -> int:
    """Parse, load the settings, act; every DriverError ends here. `hashes` are digests that were begun before."""
    log, paths = Log(), Paths()
    try:
        if any("@" in word for word in words):  # `store push` takes an address
            learn_text("\n".join(words))
        arguments = parse(words)
        config = load_settings(arguments, environment_of(arguments, paths))
        log = Log(config.log_format, config.log_level, log_stream(arguments, paths))
        warn_of_refused(arguments, log)
        return act_of(arguments)(make_tools(config, log, paths, hashes), arguments)
    except (Exception, Stopped) as end:  # noqa: BLE001  # whatever it is, it is told
        return tell_end(words, end, log, paths)


def tell_end(words: Sequence[str], end: BaseException, log: Log, paths: Paths) -> int:
    """Say how a verb ended that did not return, and leave its last word; returns the exit status."""
    if isinstance(end, OSError) and end.errno in FULL:  # no bug: what is printed may go to a full disk
        end = of_os(words[0] if words else "output", end)
    if isinstance(end, DriverError):
        log.error(f"{end.message}. {remedy_for(end)}", code=end.code.value)
        leave_word(words, paths, end)
        return end.code.exit_status
    if isinstance(end, Stopped):
        log.info(f"stopped by signal {end.signal_number}")
        return 0 if end.was_ready else 128 + end.signal_number
    if isinstance(end, BrokenPipeError):
        return 128 + 13
    import traceback

    log.error("this is a bug in driverctr:\n" + "".join(traceback.format_exception(end)), code=Code.BUG.value)
    leave_word(words, paths, of_bug(end))
    return Code.BUG.exit_status


def load_settings(arguments: argparse.Namespace, environment: Mapping[str, str]) -> Config:
    """The settings; raises DriverError (bad-setting), but not for a verb that only looks: it is needed most then.

    That goes on as if what is not valid were not given, and has it in `refused` beside what was `given`.
    """
    if words_of(arguments) not in LOOKING:
        return settings.load(environment, flags_of(arguments))
    arguments.given = environment
    config, arguments.refused = settings.load_valid(environment, flags_of(arguments))
    return config


def words_of(arguments: argparse.Namespace) -> str:
    """The verb, with the one below it."""
    return " ".join(filter(None, (arguments.verb, getattr(arguments, "store_verb", ""))))


def warn_of_refused(arguments: argparse.Namespace, log: Log) -> None:
    """What does not count though it was given: the answer may be another than the one asked for."""
    if not LOOKING.get(words_of(arguments)):
        return
    for error in arguments.refused.values():
        log.warning(f"{error.message}: here it counts as not given. {remedy_for(error)}", code=error.code.value)


def leave_word(words: Sequence[str], paths: Paths, error: DriverError) -> None:
    """A container's last word is where Kubernetes reads it, and its markers are where nobody does."""
    if words[:1] in (["init"], ["load"]):
        withdraw_markers(paths)
    if words[:1] in (["init"], ["load"], ["reload_nvidia_peermem"]):
        status.write_termination(paths, error)


def withdraw_markers(paths: Paths) -> None:
    """What a killed start left says ready through any number of starts that are refused before they take the lock.

    Where somebody holds the lock they are his. The digest stays: what is installed is still so. Where labels and
    metrics lie is believed of a setting that is valid, whatever others are.
    """
    from driverctr import features, markers, monitoring, pidlock

    config, _ = settings.load_valid(own_environment())
    labels, metrics = features.place(paths, config.nfd_features_dir), config.metrics_textfile
    there = [paths.run / markers.CONTAINER, paths.run / markers.DAEMONS, *([labels] if labels else [])]
    if not any(file.exists() for file in there) and not monitoring.is_of_killed(metrics):
        return
    with contextlib.suppress(DriverError), pidlock.held(paths.pid_file):
        markers.withdraw(paths.run, digest=False)
        features.withdraw(labels, Log())
        if monitoring.is_of_killed(metrics):
            monitoring.remove(metrics, Log())


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The words of the command line; a bare verb, as a container starts with it, needs no parser."""
    if list(words) in (["init"], ["load"]):
        return cast("argparse.Namespace", SimpleNamespace(verb=words[0], act="verbs:init"))
    from driverctr.parser import make_parser

    return make_parser().parse_args(words)


def act_of(arguments: argparse.Namespace) -> Verb:
    """What carries a verb out: "module:function", as the parser names it."""
    module, _, function = arguments.act.partition(":")
    verb: Verb = getattr(import_module(f"driverctr.{module}"), function)
    return verb


def environment_of(arguments: argparse.Namespace, paths: Paths) -> Mapping[str, str]:
    """Ours, or that of the driver container that runs."""
    if not getattr(arguments, "like_running", False):
        return os.environ
    from driverctr import instance

    return instance.environment(paths)


def own_environment() -> Mapping[str, str]:
    """That which we were started with, for a verb that tells of itself."""
    return os.environ


def log_stream(arguments: argparse.Namespace, paths: Paths) -> Stream:
    """Our stderr, where a terminal may have a bar; for `update` that of the driver container that runs too."""
    if arguments.verb != "update":
        return screen(sys.stderr)
    from driverctr import instance

    return instance.log_stream(paths)


def make_tools(config: Config, log: Log, paths: Paths, hashes: Hashes | None = None) -> Tools:
    """What every verb acts with."""
    signals = Signals()
    runner = Runner(config.child_environment, log, signals.held)
    syslog = Syslog(paths.dev / "log", paths.own_run)
    budget = Budget(signals, config.stop_timeout)
    kmod = Kmod(config.child_environment, log, paths, budget.wait)
    return Tools(paths, config, runner, kmod, signals, syslog, budget, hashes or Hashes())


def flags_of(arguments: argparse.Namespace) -> Mapping[str, str]:
    """The flags that are settings too."""
    threads = getattr(arguments, "max_threads", None)
    return {"MAX_THREADS": threads} if threads is not None else {}


def init(tools: Tools, arguments: argparse.Namespace) -> int:
    """Bring the driver up, keep it, take it down on a signal."""
    from driverctr import lifecycle

    lifecycle.init(tools, build_allowed=arguments.verb == "init")
    return 0


def build(tools: Tools, arguments: argparse.Namespace) -> int:
    """Build the modules for a kernel, running here or not, or take those given."""
    from driverctr import lifecycle

    if arguments.modules:
        built = lifecycle.take(tools, arguments.modules, arguments.kernel, arguments.output)
    else:
        built = lifecycle.build(tools, arguments.kernel, arguments.output)
    sys.stdout.write(f"{built.folder}\n")
    return 0


def update(tools: Tools, arguments: argparse.Namespace) -> int:
    """Have the modules for a kernel before it boots."""
    if arguments.sign:
        raise DriverError(
            Code.BAD_USAGE,
            f"--sign {arguments.sign!r}: modules are not signed here yet",
            "Leave --sign out; where signatures are enforced, use modules that were signed elsewhere (MODULES_DIR)",
        )
    from driverctr import ahead

    folder = ahead.update(tools, arguments.kernel, beside=arguments.like_running)
    sys.stdout.write(f"{folder}\n" if folder else "")
    return 0


def explain(tools: Tools, arguments: argparse.Namespace) -> int:
    """Print what a code means and what to do, or the whole table."""
    from driverctr.explain import EXPLANATIONS

    for code, row in EXPLANATIONS.items():
        if arguments.code in (None, code.value, str(code.exit_status)):
            again = "Trying again may help." if row.retryable else "Trying again alone does not help."
            sys.stdout.write(
                f"{code.value} (exit status {code.exit_status})\n  {row.meaning}\n  {row.remedy}\n  {again}\n"
            )
    return 0


def unload(tools: Tools, arguments: argparse.Namespace) -> int:
    """Take the driver away."""
    from driverctr import lifecycle

    lifecycle.unload(tools)
    return 0


def reload_peermem(tools: Tools, arguments: argparse.Namespace) -> int:
    """NVIDIA's peermem sidecar."""
    from driverctr import peermem_reload

    peermem_reload.run(tools.paths, tools.config, tools.kmod, tools.signals)
    return 0


def probe_peermem(tools: Tools, arguments: argparse.Namespace) -> int:
    """NVIDIA's liveness probe; without flags it is answered before anything is imported (cli.main)."""
    from driverctr.peermem import probe

    return probe()
