"""The way up: carry out the plan; what a step cannot do is learned, and the plan is made again."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field, replace

from driverctr import gpuwait, markers, survey
from driverctr.config import NoGpu
from driverctr.errors import Code, DriverError, of_os
from driverctr.facts import holders
from driverctr.modules import Source, failures
from driverctr.modules.former import Former
from driverctr.plan import Plan, PlannedStep, StepName, describe_pending, make
from driverctr.records import mutable
from driverctr.status import Phase
from driverctr.steps import Gained, Step, Tools, Undo
from driverctr.steps.devices import Daemons, DeviceNodes
from driverctr.steps.load import Load
from driverctr.steps.markers import Publish, Withdraw
from driverctr.steps.modules import Modules
from driverctr.steps.root import DriverRoot, Firmware
from driverctr.steps.unload import Unload, settle
from driverctr.steps.userspace import Userspace
from driverctr.steps.verify import Verify
from driverctr.survey import Facts, Observation

STEPS: tuple[Step, ...] = (
    Withdraw(),
    Modules(),
    Unload(),
    Userspace(),
    Firmware(),
    DriverRoot(),
    Load(),
    DeviceNodes(),
    Daemons(),
    Verify(),
    Publish(),
)

OF_THE_USER = (Code.BAD_SETTING, Code.BAD_PARAMETER)
"""What no other source of modules can cure."""

OF_THE_BUILD = (Code.UNKNOWN_SYMBOL, Code.WRONG_KERNEL)
"""What modules built here and now may cure: those that came from elsewhere were built against another kernel."""

OF_THE_NODE = (Code.NO_SPACE, Code.NODE_FILE)
"""What no other modules can cure either, and what tells nothing of those in hand."""

SHOW_THE_MODULES = (StepName.LOAD, StepName.DEVICE_NODES, StepName.DAEMONS, StepName.VERIFY)
"""Steps in which modules turn out not to serve."""

MOST_LOOKS = 5
"""How often the node is looked at anew in one start; more means that somebody works against us."""


@mutable
class BringUp:
    """One way up. `done` is what was done, to be undone in reverse; `tell(field=value, ...)` writes the status.

    `learned` are alternatives that turned out not to serve, `failure` the error of the first, `former` what served
    before this start took it away, `facts` the last look.
    """

    tools: Tools
    build_allowed: bool
    tell: Callable[..., None]
    done: list[tuple[Step, Undo]] = field(default_factory=list)
    gained: Gained = field(default_factory=Gained)
    learned: tuple[Observation, ...] = ()
    failure: DriverError | None = None
    looks: int = 0
    former: Former | None = None
    facts: Facts = field(init=False)

    def run(self) -> None:
        """Bring the driver up; raises DriverError where nothing is left to try, and Stopped."""
        self.looks, self.learned, self.failure, self.former = 0, (), None, None
        facts = self.look()
        if not facts.gpus and self.tools.config.no_gpu is NoGpu.WAIT:
            self.make_plan(facts)
            self.wait_for_gpu()
            facts = self.look()
        made = self.make_plan(facts)
        for warning in made.warnings:
            self.tools.runner.log.warning(warning)
        if facts.stack and (why := made.why_not(StepName.MODULES, Source.LOADED)):
            self.tools.runner.log.info(f"what is loaded is not kept: {why}")
        finished: dict[StepName, str] = {}
        while planned := self.next_step(facts, finished):
            try:
                self.apply(planned, facts)
                finished[planned.name] = planned.alternative
            except DriverError as error:
                facts = self.learn(planned, facts, error)
                finished = {name: way for name, way in finished.items() if name is StepName.WITHDRAW}

    def next_step(self, facts: Facts, finished: Mapping[StepName, str]) -> PlannedStep | None:
        """The first step not done yet in the way now planned; raises DriverError as make_plan does."""
        return next((step for step in self.make_plan(facts).steps if finished.get(step.name) != step.alternative), None)

    def look(self) -> Facts:
        """Survey the node once nobody else loads or unloads the driver, and tell what is wanted."""
        settle(self.tools)
        facts = survey.survey(self.tools.paths, self.tools.config)
        wish = facts.wish
        self.looks += 1
        self.former = self.former or facts.supply.former
        facts = replace(facts, supply=replace(facts.supply, former=self.former))
        self.tell(
            driver_version=wish.driver_version,
            module_type=wish.module_type,
            kernel_release=wish.kernel_release,
        )
        self.facts = replace(facts, observations=(*facts.observations, *self.learned))
        return self.facts

    def wait_for_gpu(self) -> None:
        """Sleep until a GPU is plugged in; meanwhile nothing of an earlier start says ready."""
        markers.withdraw(self.tools.paths.run, digest=True)
        self.tools.runner.log.info("no NVIDIA GPU on the PCI bus: waiting for one to be plugged in (NO_GPU=wait)")
        self.tell(phase=Phase.WAITING_FOR_GPU)
        gpuwait.wait_for_gpu(self.tools.paths, self.tools.signals)
        self.tools.runner.log.info("an NVIDIA GPU has come")
        self.tell(phase=Phase.STARTING)

    def make_plan(self, facts: Facts) -> Plan:
        """The plan as things are known now; raises DriverError for its first blocker."""
        made = make(self.tools.config, facts, build_allowed=self.build_allowed)
        for blocker in made.blockers:
            error = DriverError(blocker.code, blocker.message, blocker.remedy)
            if self.failure is not None:  # what did not serve is the cause, not that nothing else is left
                tried = [
                    seen.error for seen in facts.refusals(StepName.MODULES) if seen.alternative == Source.LAST_GOOD
                ]
                raise self.first_cause(tried[-1] if tried else None) from error
            raise error
        return made

    def first_cause(self, second: DriverError | None) -> DriverError:
        """The failure that began it, and why what served before does not return: what it lacks, or a `second` error."""
        assert self.failure is not None
        first = self.failure
        lacks = self.former.lacks if self.former else ""
        why = lacks or (second.message if second and second is not first else "")
        words = f"; rollback impossible: {why}" if why else ""
        return DriverError(first.code, f"{first.message}{words}", first.remedy)

    def apply(self, planned: PlannedStep, facts: Facts) -> None:
        """Do one step, timed and told; its undo is noted on the line after the act."""
        step = next(step for step in STEPS if step.name == planned.name)
        self.tell(step=planned.name.value)
        started = time.monotonic()
        with self.tools.runner.log.step(planned.name.value, planned.what), self.interrupts(step):
            try:
                outcome = step.apply(self.tools, planned, facts, self.gained)
            except OSError as error:
                raise of_os(planned.name.value, error) from error
            if outcome.undo is not None:
                self.note(step, outcome.undo)
            self.gained = outcome.gained
        self.tell(took=(planned.name.value, round(time.monotonic() - started, 3)))

    def note(self, step: Step, undo: Undo) -> None:
        """What undoes a step, once: a step that is done again is undone by what it says last."""
        self.done[:] = [(other, data) for other, data in self.done if other.name is not step.name]
        self.done.append((step, undo))

    @contextlib.contextmanager
    def interrupts(self, step: Step) -> Iterator[None]:
        """A signal ends a build at once, but never tears a modprobe or a mount apart."""
        if step.interruptible:
            self.tools.signals.check()
            yield
        else:
            with self.tools.signals.held():
                yield

    def learn(self, planned: PlannedStep, facts: Facts, error: DriverError) -> Facts:
        """What is known after a step could not do its part; raises the error where nothing else can be tried."""
        if error.code is Code.STUCK or self.looks >= MOST_LOOKS:
            raise error
        if planned.name is StepName.MODULES and (error.code not in OF_THE_USER or planned.alternative == Source.REMOTE):
            self.learned = (*self.learned, Observation(StepName.MODULES, planned.alternative, error))
            return replace(facts, observations=(*facts.observations, self.learned[-1]))
        if planned.name is StepName.UNLOAD and error.code is Code.IN_USE and facts.supply.kept:
            return self.look()
        if planned.name in SHOW_THE_MODULES and self.gained.source is not None and error.code not in OF_THE_NODE:
            return self.try_other_modules(facts, self.gained.source, error)
        raise self.first_cause(error) if self.failure else error

    def try_other_modules(self, facts: Facts, source: Source, error: DriverError) -> Facts:
        """These modules do not serve; where they were loaded anew, the same from elsewhere will not either.

        A build may where they were made against another kernel, and nothing served before that could return at once; so
        may the entry in doubt where the build was made with headers of another kernel. Where something else is left,
        all is taken back and looked at anew. Raises the first error of that kind where nothing is.
        """
        self.failure = self.failure or error
        loaded_anew = source not in (Source.LOADED, Source.LAST_GOOD)
        others_may = source is not Source.BUILD or facts.supply.doubt is not None
        unfit = loaded_anew and others_may and error.code in OF_THE_BUILD
        if unfit:
            self.set_aside(facts, error)
        one_of_many = unfit and not (facts.supply.former and facts.supply.former.record)
        all_new = loaded_anew and not one_of_many
        refused = [other for other in Source if other is not Source.LAST_GOOD] if all_new else [source]
        observations = [Observation(StepName.MODULES, other, error) for other in refused]
        self.make_plan(replace(facts, observations=(*facts.observations, *observations)))
        self.tools.runner.log.error(
            f"{error}; {source.value} modules do not serve, trying others", code=error.code.value
        )
        self.learned = (*self.learned, *observations)
        if all_new:
            self.remember(facts, error)
        try:
            self.rewind()
        except DriverError as stays:
            if stays.code is Code.STUCK:
                raise
            raise self.first_cause(stays) from stays
        return self.look()

    def set_aside(self, facts: Facts, error: DriverError) -> None:
        """An entry of the store that the kernel does not take is not taken by the next start either."""
        store, build = facts.supply.store, self.gained.build
        if store is None or build is None or build.key is None:
            return
        if build.module_set.folder.is_relative_to(store.folder):
            store.reject(build.key, error.message)

    @property
    def pending(self) -> str:
        """What has to wait until nobody uses the driver, and for whom; "" where nothing has."""
        kept = self.gained.kept
        return describe_pending(kept.stale, holders.describe(self.facts.in_use)) if kept and kept.stale else ""

    def describe_rollback(self) -> str:
        """Both builds, and why not the one wanted."""
        served = self.gained.build.describe() if self.gained.build else "another"
        refused = self.facts.refusals(StepName.MODULES)
        reason = self.failure.message if self.failure else self.facts.supply.failed or refused[-1].error.message
        wanted = f"{self.facts.wish.driver_version}"
        if self.facts.supply.key:
            wanted += f" ({self.facts.supply.key.digest[:12]})"
        whole = ", with its userspace," if self.gained.substitutes else ""
        return f"rolled back: the build that served last, {served}{whole} instead of the one wanted, {wanted}: {reason}"

    def rewind(self) -> None:
        """Take back what was done, in reverse; raises DriverError where the modules stay."""
        with self.tools.signals.held():
            while self.done:
                step, undo = self.done[-1]
                step.undo(self.tools, undo)
                self.done.pop()
        self.gained = Gained(unloaded=self.gained.unloaded, lost=self.gained.lost)

    def remember(self, facts: Facts, error: DriverError) -> None:
        """So that no restart in this boot unloads a driver that serves for one that did not."""
        paths = self.tools.paths
        try:
            failures.remember(paths, failures.attempt(paths, facts.wish, facts.supply.key, facts.to_load), error)
        except OSError as lost:
            self.tools.runner.log.warning(f"the failed build could not be written down: {lost}")
