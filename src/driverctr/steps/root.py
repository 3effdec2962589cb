"""Firmware where the kernel will ask for it, and our root where the host and its containers look for the driver."""

from driverctr import firmware, parameters, selinux
from driverctr.mounts import driverroot
from driverctr.plan import PlannedStep, StepName
from driverctr.steps import Gained, Outcome, Tools, Undo
from driverctr.survey import Facts


class Firmware:
    """GSP firmware is read at the first open of a device, by the kernel, in the host's mount namespace."""

    name = StepName.FIRMWARE
    interruptible = False

    def apply(self, tools: Tools, planned: PlannedStep, facts: Facts, gained: Gained) -> Outcome:
        """Place the firmware, set the search path if it is blank."""
        words = parameters.user_words(tools.paths, "nvidia")
        version = gained.module_set.driver_version
        data = firmware.place(
            tools.paths,
            version,
            log=tools.runner.log,
            wanted=not parameters.wants_no_firmware(words),
            source=gained.substitutes.get(f"usr/{firmware.FOLDER}/nvidia/{version}"),
        )
        return Outcome(data, gained)

    def undo(self, tools: Tools, data: Undo) -> None:
        """Blank the search path again if we set it."""
        firmware.undo(tools.paths, data)


class DriverRoot:
    """Exported exactly once, before anything opens a device."""

    name = StepName.DRIVER_ROOT
    interruptible = False

    def apply(self, tools: Tools, planned: PlannedStep, facts: Facts, gained: Gained) -> Outcome:
        """Slide our root in place of whatever is there; ld.so.cache, which neighbours read, came with the image."""
        log, substitutes = tools.runner.log, gained.substitutes
        undo = driverroot.export(tools.paths, log=log, substitutes=substitutes)
        selinux.label_devices(tools.paths, log=log)
        return Outcome(undo, gained)

    def undo(self, tools: Tools, data: Undo) -> None:
        """Unmount it if it is ours."""
        patience = tools.budget.for_others(driverroot.PATIENCE)
        driverroot.withdraw(tools.paths, data, log=tools.runner.log, patience=patience)
