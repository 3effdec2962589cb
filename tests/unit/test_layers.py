"""The rooms of DESIGN section 3: imports point upwards only, and some imports belong to one room."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import driverctr

PACKAGE = Path(driverctr.__file__).parent

ROOMS = (
    ("__init__",),
    (
        "deferred",
        "records",
        "hashing",
        "errors",
        "explain",
        "addresses",
        "conceal",
        "conceal_rules",
        "values",
        "terminal",
        "inotify",
        "depth",
        "diagnose",
        "log",
        "log_fields",
        "progress",
        "pidfd",
        "run",
        "files",
        "retry",
        "versions",
        "paths",
        "signals",
    ),
    ("settings", "config"),
    ("facts",),
    ("status",),
    (
        "kmod",
        "mounts",
        "syslog",
        "daemons",
        "devices",
        "pidlock",
        "vantage",
        "markers",
        "firmware",
        "parameters",
        "moduletree",
        "features",
        "kernelhook",
        "instance",
        "selinux",
    ),
    ("verify", "truth", "smi", "hints", "supervise", "gpuwait", "peermem", "peermem_reload"),
    ("distros", "packages", "patches"),
    ("headers", "kheaders", "hostmodules", "userspace"),
    ("build",),
    ("modules",),
    ("history",),
    ("survey", "node", "wishes"),
    ("preflight",),
    ("plan", "estimate"),
    ("steps",),
    ("mend", "pending", "nextkernels", "prebuild", "ahead", "keeper"),
    (
        "doctor",
        "bundle",
        "whoverb",
        "planview",
        "health",
        "stopping",
        "bringup",
        "serving",
        "persist",
        "chronicle",
        "metrics",
        "monitoring",
        "lifecycle",
    ),
    ("statusstore", "statusview", "statustext", "statuswait"),
    (
        "parser",
        "statusverb",
        "verbs",
        "storeverbs",
        "doctorverb",
        "bundleparts",
        "bundlenode",
        "historyverb",
        "cli",
        "__main__",
    ),
)
"""Highest first; a module may import from its own room and from rooms above."""


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(name: str) -> int:
    """The row a module belongs to, by its name below driverctr."""
    top = name.split(".")[0]
    return next(row for row, names in enumerate(ROOMS) if top in names)


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE).with_suffix("").parts)


def imports(file: Path) -> Iterator[str]:
    """What a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inner_imports(file: Path) -> Iterator[str]:
    for name in imports(file):
        if name.startswith("driverctr."):
            yield name.removeprefix("driverctr.")


def test_every_module_has_a_room() -> None:
    known = {name for row in ROOMS for name in row}
    assert {name_of(file).split(".")[0] for file in sources()} <= known


def test_imports_point_upwards() -> None:
    wrong = [
        f"{name_of(file)} imports {target}"
        for file in sources()
        for target in inner_imports(file)
        if room_of(target) > room_of(name_of(file))
    ]
    assert not wrong


def test_no_import_circles() -> None:
    files = {name_of(file).removesuffix(".__init__"): file for file in sources()}
    graph = {
        name: {target for target in inner_imports(file) if target in files and target != name}
        for name, file in files.items()
    }
    TopologicalSorter(graph).prepare()


def test_environment_is_read_by_config_and_cli_only() -> None:
    readers = {name_of(file) for file in sources() if "os.environ" in file.read_text()}
    assert readers <= {"config", "verbs", "cli"}


def test_processes_are_spawned_by_run_and_kmod_only() -> None:
    spawners = {
        name_of(file): target
        for file in sources()
        for target in imports(file)
        if target.split(".")[0] in ("subprocess", "sh", "multiprocessing") and name_of(file) not in ("run", "kmod")
    }
    assert not spawners


def test_what_only_a_remote_folder_needs_is_imported_by_its_own_rooms() -> None:
    of_libraries = {
        (target.split(".")[0], name_of(file))
        for file in sources()
        for target in imports(file)
        if target.split(".")[0] in ("requests", "urllib3", "cryptography")
    }
    assert of_libraries == {
        ("cryptography", "modules.signing"),
        ("cryptography", "modules.remote"),
        ("cryptography", "modules.push"),
        ("requests", "modules.connections"),
        ("requests", "modules.web"),
        ("urllib3", "modules.connections"),
        ("urllib3", "modules.web"),
    }


def test_only_a_bar_is_drawn_by_rich() -> None:
    assert {name_of(file) for file in sources() for target in imports(file) if target.split(".")[0] == "rich"} == {
        "progress"
    }


def test_what_verbs_print_is_concealed() -> None:
    """Paths for scripts (`build`, `update`) are what they are; pages and tables are of our own making."""
    plain = {("verbs", "build"), ("verbs", "update"), ("verbs", "explain"), ("cli", "leave")}
    printing = {
        (name_of(file), function.name, ast.unparse(call.args[0]))
        for file in sources()
        for function in ast.walk(ast.parse(file.read_text()))
        if isinstance(function, ast.FunctionDef)
        for call in ast.walk(function)
        if isinstance(call, ast.Call)
        and ast.unparse(call.func) in ("sys.stdout.write", "sys.stdout.writelines", "sys.stderr.write", "print")
    }
    assert printing and not [one for one in printing if not one[2].startswith("printed(") and one[:2] not in plain]


def test_files_stay_short() -> None:
    project = PACKAGE.parents[1]
    files = (file for room in (PACKAGE, project / "tests", project / "harness") for file in room.rglob("*.py"))
    assert not {str(file) for file in files if len(file.read_text().splitlines()) > 400}


def test_public_functions_have_docstrings() -> None:
    missing = [
        f"{name_of(file)}.{node.name}"
        for file in sources()
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
        and not _is_inner(file, node)
    ]
    assert not missing


def _is_inner(file: Path, wanted: ast.AST) -> bool:
    """Whether a function stands inside another one."""
    functions = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)]
    return any(
        isinstance(wanted, ast.FunctionDef) and inner is not outer and getattr(inner, "lineno", 0) == wanted.lineno
        for outer in functions
        for inner in ast.walk(outer)
    )
