"""What a bundle holds of us: settings, checks, plan, status, store, history, modules, logs."""

import json
import os
import platform
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from driverctr import (
    doctor,
    features,
    history,
    instance,
    planview,
    status,
    statustext,
    statusview,
    storeverbs,
    vantage,
    whoverb,
)
from driverctr.bundle import Part, read_end
from driverctr.errors import DriverError
from driverctr.facts import kernel, modules
from driverctr.facts.kernel import KernelFacts
from driverctr.files import entries, newest, read_text
from driverctr.log import utc
from driverctr.modules.drafts import DEFAULT_SCRATCH, SCRATCH
from driverctr.modules.entry import BUILD_LOG
from driverctr.modules.store import Store
from driverctr.paths import Paths
from driverctr.plan import Plan
from driverctr.planview import View
from driverctr.records import asdict, field, mutable
from driverctr.settings import SETTINGS, Setting
from driverctr.steps import Tools
from driverctr.terminal import Paint
from driverctr.userspace import image
from driverctr.values import Secret

HIDDEN = "..."
"""In place of a secret."""


@mutable
class Scene:
    """What the parts are made of; `refused` is why some of the settings given, `given`, do not count."""

    tools: Tools
    refused: tuple[DriverError, ...] = ()
    given: Mapping[str, str] = field(default_factory=dict)
    _view: View | DriverError | None = None
    _asked: bool = False

    @property
    def paths(self) -> Paths:
        """Where everything is."""
        return self.tools.paths

    def plan(self) -> Plan:
        """What a start would do now; raises as `view` does."""
        return self.view().plan

    def view(self) -> View:
        """That, with what is told beside it; looked for once, whatever becomes of it.

        Raises DriverError, and TimeoutError where the first look has not ended.
        """
        if not self._asked:
            self._asked = True
            try:
                self._view = planview.find(self.paths, self.tools.config)
            except DriverError as error:
                self._view = error
        if self._view is None:
            raise TimeoutError("the look at the node failed, see checks.txt")
        if isinstance(self._view, DriverError):
            raise self._view
        return self._view


def versions(scene: Scene) -> str:
    """Who we are, and what runs us."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        ours = version("driverctr")
    except PackageNotFoundError:
        ours = "unknown"
    lines = [
        f"driverctr {ours} in {Path(__file__).parent}",
        f"Python {platform.python_version()} ({sys.executable})",
        f"now {utc(time.time())}",
        f"kernel {' '.join(os.uname())}",
        f"uptime {(read_text(scene.paths.proc / 'uptime') or 'unknown').partition(' ')[0]} s",
        f"our cgroup {read_text(scene.paths.proc / 'self/cgroup') or 'unknown'}",
        f"process 1 {' '.join((read_text(scene.paths.proc / '1/cmdline') or 'unknown').split(chr(0)))}",
    ]
    capabilities = (read_text(scene.paths.proc / "self/status") or "").splitlines()
    lines += [line for line in capabilities if line.startswith(("Uid:", "Gid:", "Cap", "NoNewPrivs:", "Seccomp:"))]
    return "\n".join(lines) + "\n"


def image_description(scene: Scene) -> Any:
    """What the image says of itself."""
    return parsed(read_end(scene.paths.root / image.DESCRIPTION))


def parsed(text: str) -> Any:
    """A document, or the text where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def settings(scene: Scene) -> dict[str, Any]:
    """Every setting as it counts, those that were given, and why some do not count."""
    taken = scene.tools.config.given
    given = {**taken, **scene.given}
    return {
        "refused": [status.describe_failure(error) for error in scene.refused],
        "counts": {row.variable: _shown(row, taken.get(row.variable, row.default)) for row in SETTINGS},
        "given": {row.variable: _shown(row, given[row.variable]) for row in SETTINGS if row.variable in given},
        "handed to programs": dict(scene.tools.config.child_environment),
    }


def settings_of_running(scene: Scene) -> Any:
    """What the driver container that runs was started with, as far as it is ours."""
    if instance.pid(scene.paths) is None:
        return "no driver container that can be seen from here holds the lock"
    secret = {row.variable for row in SETTINGS if _is_secret(row)}
    found = instance.environment(scene.paths)
    return {name: HIDDEN if name in secret else value for name, value in sorted(found.items())}


def _shown(row: Setting, text: str) -> str:
    return HIDDEN if text and _is_secret(row) else str(text)


def _is_secret(row: Setting) -> bool:
    return isinstance(row.parse(row.variable, row.default), Secret)


def checks(scene: Scene) -> str:
    """As `driverctr doctor` prints them."""
    return doctor.describe(doctor.with_settings(scene.plan(), scene.refused))


def checks_document(scene: Scene) -> dict[str, Any]:
    """As `driverctr doctor --json` prints them."""
    return doctor.collect(doctor.with_settings(scene.plan(), scene.refused))


def plan(scene: Scene) -> str:
    """As `driverctr plan` prints it."""
    return planview.describe(scene.view())


def plan_document(scene: Scene) -> dict[str, Any]:
    """As `driverctr plan --json` prints it."""
    return scene.view().as_dict()


def status_view(scene: Scene) -> str:
    """As `driverctr status` prints it."""
    return statustext.render(status_view_document(scene), Paint(on=False))


def status_view_document(scene: Scene) -> dict[str, Any]:
    """As `driverctr status --json` prints it."""
    paths = scene.paths if scene.paths.are_elsewhere() else vantage.find(scene.paths.root)
    return statusview.collect(paths, {**scene.tools.config.given, **scene.given})


def who(scene: Scene) -> str:
    """As `driverctr who` prints it."""
    return whoverb.describe(whoverb.look(scene.paths))


def who_document(scene: Scene) -> dict[str, Any]:
    """As `driverctr who --json` prints it."""
    return whoverb.as_dict(whoverb.look(scene.paths))


def status_file(scene: Scene) -> Any:
    """The status document as the last start left it."""
    return parsed(read_end(scene.paths.status_file))


def history_file(scene: Scene) -> str:
    """The starts of this node."""
    folder = history.folder(scene.paths, scene.tools.config)
    if folder is None:
        return "no place for a history: there is no store\n"
    return read_end(folder / history.FILE)


def termination(scene: Scene) -> Any:
    """The last word of a start, for Kubernetes."""
    return parsed(read_end(scene.paths.termination_log))


def markers(scene: Scene) -> str:
    """Every file below /run/nvidia that is no mount's, with its content where it is short; the node's labels too."""
    labels = features.place(scene.paths, scene.tools.config.nfd_features_dir)
    found = [
        *_files(scene.paths.run, but=scene.paths.driver_root),
        *([labels] if labels is not None and labels.is_file() else []),
    ]
    return "".join(_tell_file(path) for path in found) or f"no file in {scene.paths.run}\n"


def _files(folder: Path, but: Path) -> Iterable[Path]:
    for path in entries(folder):
        if path.is_dir() and not path.is_symlink():
            if path != but:
                yield from _files(path, but)
        else:
            yield path


def _tell_file(path: Path) -> str:
    try:
        if not path.is_file():
            return f"== {path}: not a regular file\n"
        content = read_end(path, 16 << 10)
        return f"== {path}, {path.stat().st_size} bytes, changed {utc(path.stat().st_mtime)}\n{content.rstrip()}\n"
    except OSError as error:
        return f"== {path}: {error.strerror}\n"


def store(scene: Scene) -> str:
    """As `driverctr store list` and `store why` print it."""
    opened, running = storeverbs.open_store(scene.tools), kernel.read(scene.paths.root)
    return storeverbs.format_list(storeverbs.describe(opened, running)) + _why(scene, opened, running)


def _why(scene: Scene, opened: Store, running: KernelFacts) -> str:
    try:
        wanted = storeverbs.wanted_key(scene.tools, running)
        return f"\nwanted here: {wanted.digest}\n{wanted.document}\nhit: {opened.find(wanted)}\n"
    except DriverError as error:
        return f"\nmiss: {error.message}\n"


def build_log(scene: Scene) -> str:
    """The newest log of a build: of one that failed or is under way, in scratch, or of modules that are kept."""
    config, root = scene.tools.config, scene.paths.root
    scratch = root / DEFAULT_SCRATCH.relative_to("/")
    kept = [root / config.modules_dir.relative_to("/"), history.folder(scene.paths, config)]
    found = [*scratch.glob(f"{SCRATCH}*.log"), *scratch.glob(f"{SCRATCH}*/**/*.log")]
    found += [log for folder in kept if folder is not None for log in folder.glob(f"*/*/{BUILD_LOG}")]
    last = newest(found)
    if last is None:
        return "no log of a build is there\n"
    return f"{last}, written {utc(last.stat().st_mtime)}\n\n{read_end(last)}"


def module_files(scene: Scene) -> str:
    """What modinfo says of our modules: those that modprobe takes for this kernel, those on disk and in the store."""
    release = kernel.read(scene.paths.root).release
    tree = scene.paths.modules_tree(release)
    config = scene.tools.config
    folders = [scene.paths.root / config.modules_dir.relative_to("/"), history.folder(scene.paths, config)]
    found = [file for file in tree.rglob("*.ko*") if file.name.startswith("nvidia")]
    found += [file for folder in folders if folder is not None for file in folder.glob("*/*/nvidia*.ko*")]
    return "".join(_modinfo(scene, file) for file in dict.fromkeys(found)) or f"no module of ours for {release}\n"


def _modinfo(scene: Scene, file: Path) -> str:
    said = scene.tools.runner.run(["modinfo", file], check=False, limit=10)
    lines = [line for line in said.stdout.splitlines() if not line.startswith(("alias:", "parm:"))]
    return "\n".join([f"== {file}", *lines, *said.stderr.splitlines()]) + "\n"


def modules_loaded(scene: Scene) -> dict[str, Any]:
    """The driver as the kernel has it: modules, builds, who holds them, parameters."""
    stack = modules.read_stack(scene.paths)
    parameters = {
        module: {path.name: read_text(path) for path in entries(scene.paths.sys_modules / module / "parameters")}
        for module in stack
    }
    lines = (read_text(scene.paths.proc / "modules") or "").splitlines()
    told = {name: {**asdict(module), "parameters": parameters[name]} for name, module in stack.items()}
    return {"modules": told, "/proc/modules": [line for line in lines if "nvidia" in line]}


PARTS = (
    Part("versions.txt", "driverctr, Python, kernel, our privileges", versions),
    Part("image.json", "what the image says of itself", image_description),
    Part("settings.json", "settings as they count, and those given", settings),
    Part("settings-running.json", "settings of the driver container that runs", settings_of_running),
    Part("checks.txt", "every check: driverctr doctor", checks),
    Part("checks.json", "the same: driverctr doctor --json", checks_document),
    Part("plan.txt", "what a start would do now: driverctr plan", plan),
    Part("plan.json", "the same: driverctr plan --json", plan_document),
    Part("status.txt", "what is so: driverctr status", status_view),
    Part("status.json", "the same: driverctr status --json", status_view_document),
    Part("who.txt", "who holds the driver: driverctr who", who),
    Part("who.json", "the same: driverctr who --json", who_document),
    Part("status-file.json", "the status document as the last start left it", status_file),
    Part("history.jsonl", "the starts of this node", history_file, keeps_end=True),
    Part("termination.json", "the last word of a start, for Kubernetes", termination),
    Part("markers.txt", "files below /run/nvidia, labels for Node Feature Discovery", markers),
    Part("store.txt", "modules built before: driverctr store list", store),
    Part("build.log", "the newest log of a build", build_log, most=1 << 20, keeps_end=True),
    Part("modules-loaded.json", "the driver as the kernel has it", modules_loaded),
    Part("modinfo.txt", "what modinfo says of our files", module_files),
)
"""What we know of ourselves; bundlenode.PARTS is what the node tells."""
