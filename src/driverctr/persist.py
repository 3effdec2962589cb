"""Failures that may pass are tried again by the start that met them: nobody else sets the pace."""

import contextlib
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from driverctr import markers, pidlock, status
from driverctr.bringup import BringUp
from driverctr.errors import Code, DriverError
from driverctr.explain import EXPLANATIONS
from driverctr.plan import StepName
from driverctr.run import reap
from driverctr.settings import Retry
from driverctr.status import Phase, Status
from driverctr.steps import Tools
from driverctr.steps.markers import withdraw
from driverctr.stopping import STAYS_WHILE_IN_USE

FIRST_PAUSE = 10.0
"""Seconds before the second attempt, up to a half less."""

STAYS_FOR_THE_NEXT = tuple(name for name in STAYS_WHILE_IN_USE if name is not StepName.USERSPACE)
"""What an attempt leaves where the driver stays: a driver root shows another version's userspace without us, too."""


def persist(tools: Tools, way_up: BringUp, told: Callable[[], Status], tell: Callable[..., Any]) -> None:
    """Go up until ready; raises the DriverError that is not tried again, and Stopped.

    An attempt that met somebody who uses the driver is none of those that are counted.
    """
    most = tools.config.retry_attempts
    while True:
        try:
            way_up.run()
            return
        except DriverError as error:
            is_last = told().attempt >= most
            if not may_pass(tools, way_up, error, is_last=is_last) or not take_back(tools, way_up, error):
                raise
            most += error.code is Code.IN_USE
            wait(tools, way_up, error, told(), most, tell)
            begin_anew(way_up)
            attempt = told().attempt + 1
            tell(phase=Phase.STARTING, attempt=attempt, steps=(), store="", store_reason="", in_use=())


def may_pass(tools: Tools, way_up: BringUp, error: DriverError, *, is_last: bool) -> bool:
    """Whether the same is to be tried again: it may help, and attempts are left.

    Outside a pod only what was met before the node was touched; in one the kubelet would start us again all the same.
    """
    config = tools.config
    if config.retry is Retry.NEVER or not EXPLANATIONS[error.code].retryable:
        return False
    everything = config.retry is Retry.ALWAYS or config.in_pod
    in_use = error.code is Code.IN_USE
    if in_use and (not everything or any(step.name is StepName.LOAD for step, _ in way_up.done)):
        return False
    if is_last and not in_use:
        return False
    return everything or not has_touched(way_up)


def has_touched(way_up: BringUp) -> bool:
    """Whether anything was done that an undo would take back, or was unloaded."""
    return bool(way_up.gained.unloaded) or any(step.name is not StepName.WITHDRAW for step, _ in way_up.done)


def take_back(tools: Tools, way_up: BringUp, error: DriverError) -> bool:
    """Have the node as a new process would find it; where that fails there is no next attempt.

    Raises DriverError (stuck) where the kernel hangs meanwhile: then nothing more may be touched.
    """
    try:
        step_back(tools, way_up)
        withdraw(tools, digest=False)
    except DriverError as stays:
        if stays.code is Code.STUCK:
            raise stays from error
        tools.runner.log.error(
            f"{error.code.value} is not tried again, since not all could be undone: {stays}", code=stays.code.value
        )
        return False
    with contextlib.suppress(DriverError):  # no room for it, maybe: the next attempt tells
        markers.write_daemons_status(tools.paths.run, ready=False)
    return True


def step_back(tools: Tools, way_up: BringUp) -> None:
    """Undo what the end of this process would undo; raises DriverError where that fails.

    A driver that was loaded before this start stays, and one that somebody uses, with what its users need: should a
    stop come before the next attempt, it finds that in `done`.
    """
    kept = way_up.gained.kept
    try:
        way_up.rewind(STAYS_FOR_THE_NEXT if kept else ())
    except DriverError as error:
        if error.code is not Code.IN_USE:
            raise
        way_up.rewind(STAYS_FOR_THE_NEXT)
    way_up.gained = replace(way_up.gained, kept=kept)
    if way_up.done:
        why = "was loaded before this start" if kept else "is in use"
        names = ", ".join(step.name.value for step, _ in way_up.done)
        tools.runner.log.info(f"the driver {why}: it stays for the next attempt ({names})")


def begin_anew(way_up: BringUp) -> None:
    """What was left is what the next attempt finds, as a new process would: not what it did."""
    way_up.done.clear()
    way_up.gained = replace(way_up.gained, kept=None)


def wait(tools: Tools, way_up: BringUp, error: DriverError, told: Status, most: int, tell: Callable[..., Any]) -> None:
    """Tell what failed and when it is tried again, and let that time pass; raises Stopped."""
    next_try = announce(tools, error, told.attempt, 0 if error.code is Code.IN_USE else most)
    in_use = way_up.blocked_by(error)
    failure = status.failed_now(error)
    tell(phase=Phase.RETRYING, attempt=told.attempt, failure=failure, next_try=next_try, in_use=in_use, step=told.step)
    gc.enable()  # cli has switched it off for a start, and this may last
    tools.signals.pause(next_try - time.time())
    reap(set())


def announce(tools: Tools, error: DriverError, attempt: int, most: int) -> float:
    """Say what failed, for the case too that this is our end, and when it is tried again (seconds since the epoch).

    `most` is the number of attempts, 0 where they have no end.
    """
    from driverctr.retry import pause_before

    seconds = pause_before(attempt + 1, FIRST_PAUSE, tools.config.retry_max_pause)
    next_try = time.time() + seconds
    clock = time.strftime("%H:%M:%S", time.gmtime(next_try))
    of = f" of {most}" if most else ""
    tools.runner.log.error(
        f"attempt {attempt}{of} failed: {error}; next try in {seconds:.0f} s, at {clock} UTC",
        code=error.code.value,
        attempt=attempt,
        next_try=round(next_try, 3),
    )
    status.write_termination(tools.paths, error)
    return next_try


@contextlib.contextmanager
def locked(tools: Tools) -> Iterator[None]:
    """Hold the lock for the length of the block; in a pod, one that another is about to give up is waited for.

    Raises DriverError as pidlock.held does, and Stopped.
    """
    config = tools.config
    waits = config.retry is Retry.ALWAYS or (config.retry is Retry.AUTO and config.in_pod)
    with contextlib.ExitStack() as stack:
        for attempt in range(1, config.retry_attempts + 1):
            try:
                stack.enter_context(pidlock.held(tools.paths.pid_file))
                break
            except DriverError as error:
                if error.code is not Code.ALREADY_RUNNING or not waits or attempt == config.retry_attempts:
                    raise
                tools.signals.pause(announce(tools, error, attempt, config.retry_attempts) - time.time())
        yield
