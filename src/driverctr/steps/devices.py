"""Device nodes and daemons."""

from driverctr import daemons, devices, selinux
from driverctr.errors import code_of
from driverctr.plan import PlannedStep, StepName
from driverctr.records import replace
from driverctr.steps import Gained, Outcome, Tools, Undo
from driverctr.survey import Facts


class DeviceNodes:
    """Made in our /dev, which the driver root shows to the host's containers."""

    name = StepName.DEVICE_NODES
    interruptible = False

    def apply(self, tools: Tools, planned: PlannedStep, facts: Facts, gained: Gained) -> Outcome:
        """Make what is missing or has a former load's numbers."""
        wanted = devices.wanted(tools.paths)
        made = devices.create(tools.paths, wanted)
        tools.runner.log.info(f"{len(wanted)} device nodes, {len(made)} made")
        if made:  # those that were not there when the driver root was exported
            selinux.label_devices(tools.paths, log=tools.runner.log)
        return Outcome({"nodes": [node.name for node in wanted]}, gained)

    def undo(self, tools: Tools, data: Undo) -> None:
        """Nodes of a driver that is gone would open nothing, or something else."""
        devices.remove(tools.paths, data["nodes"])


class Daemons:
    """nvidia-persistenced."""

    name = StepName.DAEMONS
    interruptible = False

    def apply(self, tools: Tools, planned: PlannedStep, facts: Facts, gained: Gained) -> Outcome:
        """Start each; adopt one that lives."""
        try:
            tools.syslog.open()
        except OSError as error:
            tools.runner.log.warning(f"daemons' words go to the host's syslog only: {error}", code=code_of(error))
        running = tuple(daemons.find(tools.paths, daemon) or tools.start_daemon(daemon) for daemon in daemons.DAEMONS)
        return Outcome({"daemons": [found.daemon.name for found in running]}, replace(gained, running=running))

    def undo(self, tools: Tools, data: Undo) -> None:
        """Stop those that live."""
        for daemon in reversed(daemons.DAEMONS):
            running = daemons.find(tools.paths, daemon)
            if daemon.name in data["daemons"] and running is not None:
                tools.stop_daemon(running)
                daemons.tell(tools.runner, daemon, tools.syslog)
        tools.syslog.close()
