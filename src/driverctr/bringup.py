"""The way up: carry out the plan; what a step cannot do is learned, and the plan is made again."""

import contextlib
import gc
import time
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

from driverctr import gpuwait, markers, stopping, survey
from driverctr.errors import Code, DriverError, code_of, of_os
from driverctr.facts import holders, kernellog
from driverctr.facts.kernellog import Mark
from driverctr.modules import Source, failures
from driverctr.modules.entry import BUILD_LOG
from driverctr.modules.former import Former
from driverctr.modules.loaded import Build
from driverctr.plan import Plan, PlannedStep, StepName, describe_pending, make
from driverctr.records import field, mutable, replace
from driverctr.settings import NoGpu
from driverctr.status import Phase
from driverctr.steps import Gained, Step, Tools, Undo
from driverctr.steps.devices import Daemons, DeviceNodes
from driverctr.steps.load import Load
from driverctr.steps.markers import Publish, Withdraw, withdraw
from driverctr.steps.modules import OF_THE_BUILD, Modules, ModuleTree
from driverctr.steps.root import DriverRoot, Firmware
from driverctr.steps.unload import Unload, check_free, settle
from driverctr.steps.userspace import Userspace
from driverctr.steps.verify import Verify
from driverctr.survey import Facts, Observation

STEPS: tuple[Step, ...] = (
    Withdraw(),
    Modules(),
    ModuleTree(),
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

OF_THE_NODE = (Code.NO_SPACE, Code.NODE_FILE)
"""What no other modules can cure either, and what tells nothing of those in hand."""

SHOW_THE_MODULES = (StepName.LOAD, StepName.DEVICE_NODES, StepName.DAEMONS, StepName.VERIFY)
"""Steps in which modules turn out not to serve."""

HEARD = (StepName.DAEMONS, StepName.VERIFY)
"""Steps in which GPUs are opened: what the driver says from the first of them on belongs to the failure of each."""

MOST_LOOKS = 5
"""How often the node is looked at anew in one start; more means that somebody works against us."""


@mutable
class BringUp:
    """One way up. `done` is what was done, to be undone in reverse; `tell(field=value, ...)` writes the status.

    `learned` are alternatives that turned out not to serve, `failure` the error of the first, `unfit` the build of the
    store that the kernel did not take, `former` what served before this start took it away, `facts` the last look,
    `heard` where the steps that are HEARD began.
    """

    tools: Tools
    build_allowed: bool
    tell: Callable[..., None]
    done: list[tuple[Step, Undo]] = field(default_factory=list)
    gained: Gained = field(default_factory=Gained)
    learned: tuple[Observation, ...] = ()
    failure: DriverError | None = None
    unfit: Build | None = None
    looks: int = 0
    former: Former | None = None
    heard: Mark | None = None
    facts: Facts = field(init=False)

    def run(self) -> None:
        """Bring the driver up; raises DriverError where nothing is left to try, and Stopped."""
        try:
            self.go_up()
        finally:
            self.hear(None)

    def go_up(self) -> None:
        """Do what the plan says, until nothing is left to do."""
        self.looks, self.learned, self.failure, self.unfit, self.former = 0, (), None, None, None
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
                if error.code is not Code.STUCK:  # what a stop cut short tells nothing of what was tried
                    self.tools.signals.check()
                facts = self.learn(planned, facts, error)
                finished = {name: way for name, way in finished.items() if name is StepName.WITHDRAW}

    def next_step(self, facts: Facts, finished: Mapping[StepName, str]) -> PlannedStep | None:
        """The first step not done yet in the way now planned; raises DriverError as make_plan does."""
        return next((step for step in self.make_plan(facts).steps if finished.get(step.name) != step.alternative), None)

    def look(self) -> Facts:
        """Survey the node once nobody else loads or unloads the driver, and tell what is wanted.

        Who uses a driver that has to go is waited for, as at a stop: a probe that runs nvidia-smi is soon gone.
        """
        settle(self.tools)
        self.looks += 1
        deadline = time.monotonic() + stopping.BUSY_WAIT
        while self.is_only_in_use(self.survey()) and time.monotonic() < deadline:
            self.tools.signals.sleep(stopping.BUSY_PAUSE)
        wish = self.facts.wish
        self.tell(
            driver_version=wish.driver_version,
            module_type=wish.module_type,
            kernel_release=wish.kernel_release,
        )
        return self.facts

    def survey(self) -> Facts:
        """One look at the node, with what was learned before."""
        facts = survey.survey(self.tools.paths, self.tools.config)
        self.former = self.former or facts.supply.former
        facts = replace(facts, supply=replace(facts.supply, former=self.former))
        self.facts = replace(facts, observations=(*facts.observations, *self.learned))
        return self.facts

    def blocked_by(self, error: DriverError) -> tuple[dict[str, Any], ...]:
        """Who uses the driver, by the last look, where that is why a start fails."""
        return tuple(use.as_dict() for use in self.facts.in_use) if error.code is Code.IN_USE else ()

    def is_only_in_use(self, facts: Facts) -> bool:
        """Whether nothing but who uses the driver is in the way."""
        if not facts.in_use:
            return False
        blockers = make(self.tools.config, facts, build_allowed=self.build_allowed).blockers
        return bool(blockers) and all(blocker.code is Code.IN_USE for blocker in blockers)

    def wait_for_gpu(self) -> None:
        """Sleep until a GPU is plugged in; meanwhile nothing of an earlier start says ready."""
        gc.enable()  # cli has switched it off for a start, and this may last for months
        withdraw(self.tools, digest=True)
        markers.write_daemons_status(self.tools.paths.run, ready=False)
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
        if step.name is HEARD[0]:
            self.hear(Mark(self.tools.paths))
        with self.tools.runner.log.step(planned.name.value, planned.what), self.interrupts(step):
            try:
                outcome = step.apply(self.tools, planned, facts, self.gained)
            except OSError as error:
                raise of_os(planned.name.value, error) from error
            except DriverError as error:
                if step.name not in HEARD or self.heard is None:
                    raise
                raise kernellog.explain(self.tools.paths, self.heard, error) from error
            if outcome.undo is not None:
                self.note(step, outcome.undo)
            self.gained = outcome.gained
        if step.name is StepName.MODULES:
            self.tell_of_store(planned, facts)
        self.tell(took=(planned.name.value, round(time.monotonic() - started, 3)))

    def tell_of_store(self, planned: PlannedStep, facts: Facts) -> None:
        """Whether the modules were in the store, where it was asked: whoever has them loaded asks nobody."""
        reason = planned.why_not(Source.STORE)
        asked = facts.supply.store is not None and (reason or planned.alternative == Source.STORE)
        self.tell(store=("miss" if reason else "hit") if asked else "", store_reason=reason)

    def hear(self, mark: Mark | None) -> None:
        """From now on the kernel log is read from this mark."""
        if self.heard is not None:
            self.heard.close()
        self.heard = mark

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
            return self.refuse(facts, planned.alternative, error)
        if planned.name is StepName.MODULE_TREE and error.code is Code.NO_MODULES and self.gained.source:
            return self.refuse(facts, self.gained.source, error)
        if planned.name is StepName.UNLOAD and error.code is Code.IN_USE:
            return self.look()
        if planned.name in SHOW_THE_MODULES and self.gained.source is not None and error.code not in OF_THE_NODE:
            return self.try_other_modules(facts, self.gained.source, error)
        raise self.first_cause(error) if self.failure else error

    def refuse(self, facts: Facts, source: str, error: DriverError) -> Facts:
        """Nothing can be had from there."""
        self.learned = (*self.learned, Observation(StepName.MODULES, source, error))
        return replace(facts, observations=(*facts.observations, self.learned[-1]))

    def try_other_modules(self, facts: Facts, source: Source, error: DriverError) -> Facts:
        """These modules do not serve; where they were loaded anew, the same from elsewhere will not either.

        A build may where they were made against another kernel and never served here, and nothing served before that
        could return at once; once in a boot, since it is remembered that it did not. Where something else is left, all
        is taken back and looked at anew. Raises the first error of that kind where nothing is.
        """
        self.failure = self.failure or error
        loaded_anew = source not in (Source.LOADED, Source.LAST_GOOD)
        curable = loaded_anew and source is not Source.BUILD and error.code in OF_THE_BUILD
        unfit = curable and not facts.supply.failed and not self.has_served(facts)
        if unfit and source is Source.STORE:
            self.unfit = self.gained.build
        one_of_many = unfit and not (facts.supply.former and facts.supply.former.record)
        all_new = loaded_anew and not one_of_many
        refused = [other for other in Source if other is not Source.LAST_GOOD] if all_new else [source]
        observations = [Observation(StepName.MODULES, other, error) for other in refused]
        without = replace(facts, observations=(*facts.observations, *observations))
        others = not make(self.tools.config, without, build_allowed=self.build_allowed).blockers
        if all_new and (others or error.code in OF_THE_BUILD):
            self.remember(facts, error)
        self.make_plan(without)
        self.tools.runner.log.error(
            f"{error}; {source.value} modules do not serve, trying others", code=error.code.value
        )
        self.learned = (*self.learned, *observations)
        try:
            self.rewind()
        except DriverError as stays:
            if stays.code is Code.STUCK:
                raise
            raise self.first_cause(stays) from stays
        return self.look()

    def has_served(self, facts: Facts) -> bool:
        """Whether these very modules became ready on this kernel before: then they are not what is wrong."""
        supply, build = facts.supply, self.gained.build
        if build is None or build.key is None:
            return False
        from driverctr.modules import provenance

        is_former = supply.good is not None and supply.good.build.key == build.key
        return is_former or (supply.store is not None and provenance.has_served(supply.store, build.key))

    def replace_unfit(self) -> None:
        """Others serve where the build of the store did not: it is taken no more, and what was built for it is kept.

        Raises DriverError (store-unusable, no-space).
        """
        store, unfit, build = self.facts.supply.store, self.unfit, self.gained.build
        if store is None or unfit is None or unfit.key is None or build is None or self.failure is None:
            return
        self.unfit = None
        store.reject(unfit.key, self.failure.message)
        if build.key is not None and self.gained.source in (Source.BUILD, Source.REMOTE):
            made = build.module_set
            placed = store.publish(build.key, made, made.folder / BUILD_LOG, build.provenance)
            if build.is_same(placed.module_set):  # an entry that could not be moved is still the former one
                self.gained = replace(self.gained, build=Build(placed.module_set, placed.key))

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

    def rewind(self, but: Container[StepName] = ()) -> None:
        """Take back what was done, `but` for some steps, in reverse; raises DriverError where the modules stay.

        Use is tested before anything is stopped: somebody may have opened a GPU since it was loaded.
        """
        with self.tools.signals.held():
            if not but and any(step.name in stopping.STAYS_WHILE_IN_USE for step, _ in self.done):
                check_free(self.tools)
            for step, undo in reversed(self.done.copy()):
                if step.name in but:
                    continue
                try:
                    step.undo(self.tools, undo)
                except OSError as error:
                    raise of_os(f"undo of {step.name.value}", error) from error
                self.done[:] = [other for other in self.done if other[0] is not step]
        self.gained = Gained(unloaded=self.gained.unloaded, lost=self.gained.lost)

    def remember(self, facts: Facts, error: DriverError) -> None:
        """So that no restart in this boot builds again, or unloads a driver that serves, for one that did not."""
        with self.written("the failed build"):
            failures.remember(self.tools.paths, self.attempt(facts), error)

    def take_back(self) -> None:
        """What did not serve earlier in this boot does now."""
        pending = self.gained.kept and self.gained.kept.stale
        if self.facts.supply.failed and self.gained.source is not Source.LAST_GOOD and not pending:
            with self.written("that it serves now"):
                failures.take_back(self.tools.paths, self.attempt(self.facts))

    def attempt(self, facts: Facts) -> str:
        """What is tried, by which it is known again."""
        return failures.attempt(self.tools.paths, facts.wish, facts.supply.key, facts.to_load)

    @contextlib.contextmanager
    def written(self, what: str) -> Iterator[None]:
        """A start does not fail for what it cannot write down for the next."""
        try:
            yield
        except OSError as lost:
            self.tools.runner.log.warning(f"{what} could not be written down: {lost}", code=code_of(lost))
