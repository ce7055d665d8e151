"""Sizes and manners of the rooms."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("wire", "dht", "orderbook", "escrow", "cafs", "peer", "tui", "simulations", "blender")
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
EXCEPTIONS = (
    ROOT / "peer/cli/__init__.py",  # the entry point of the command is looked for here
    ROOT / "blender/bitwrk/__init__.py",  # Blender looks here for what the add-on is and how to register it
)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_modules_and_functions_stay_small_and_say_what_they_are(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module begins by saying what it is"
    assert len(text.splitlines()) <= MODULE_LINES_MAX
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", [one for one in MODULES if one.name == "__init__.py"], ids=name)
def test_a_package_is_only_a_docstring(path: Path) -> None:
    body = ast.parse(path.read_text()).body
    assert len(body) == 1 or path in EXCEPTIONS


def test_bounds_are_in_one_place() -> None:
    limits = {
        target.id
        for node in ast.parse((ROOT / "wire/limits.py").read_text()).body
        if isinstance(node, ast.AnnAssign) and isinstance(target := node.target, ast.Name)
    }
    used = {word for path in MODULES if path.name != "limits.py" for word in limits if word in path.read_text()}
    assert limits - used == set(), "bounds that nobody keeps"
