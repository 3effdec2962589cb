"""A distribution that is built on another costs little code, in its own file and its own test, and nowhere else."""

import ast
import importlib
from pathlib import Path

import pytest

from driverctr import distros
from driverctr.distros import Distro

FOLDER = Path(distros.__file__).parent
PACKAGE = FOLDER.parent
TESTS = Path(__file__).parent
PARENTS = ("debian", "ubuntu", "rhel")
DERIVATIVES = [name for name in distros.known() if name not in PARENTS]
MOST = 40


def lines_of_code(file: Path) -> int:
    """Lines with a statement or a part of one: no blank lines, comments or docstrings."""
    tree = ast.parse(file.read_text())
    texts: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            texts.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(file.read_text().splitlines(), 1)
    return sum(1 for number, line in lines if number not in texts and line.strip() and not line.strip().startswith("#"))


def test_there_are_some() -> None:
    assert {"rocky", "almalinux", "centos", "ol", "linuxmint"} == set(DERIVATIVES)


@pytest.mark.parametrize("name", DERIVATIVES)
def test_a_derivative_is_small(name: str) -> None:
    file, test = FOLDER / f"{name}.py", TESTS / f"test_distro_{name}.py"
    assert len(file.read_text().splitlines()) <= MOST
    assert lines_of_code(file) + lines_of_code(test) <= MOST


@pytest.mark.parametrize("name", DERIVATIVES)
def test_a_derivative_is_known_by_its_file_alone(name: str) -> None:
    others = [
        str(file)
        for file in PACKAGE.rglob("*.py")
        if file != FOLDER / f"{name}.py"
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and node.value == name
    ]
    assert not others
    importlib.import_module(f"driverctr.distros.{name}")
    assert Distro.registry[name].name == name
    assert any(issubclass(Distro.registry[name], Distro.registry[parent]) for parent in PARENTS)
