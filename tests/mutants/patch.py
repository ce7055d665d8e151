"""Putting a mutant into code that is already loaded: functions keep their identity and get another code object."""

import ast
import sys
import types
from typing import Any, Final

from tests.mutants.operators import Function, Mutant, changed

_LOOKED_INTO: Final = ("orderbook.", "tests.orderbook", "peer.core")


class CannotPatch(Exception):
    """This mutant cannot be put into loaded code."""


def apply(mutant: Mutant, source: str) -> None:
    """Put ``mutant`` into the running process. Raises ``CannotPatch``."""
    module = sys.modules[mutant.module]
    tree = changed(source, mutant)
    if mutant.path:
        _patch_function(module, mutant, tree)
    else:
        _patch_constant(module, mutant, tree)


def _patch_function(module: types.ModuleType, mutant: Mutant, tree: ast.Module) -> None:
    function = _function(module, mutant.path)
    code: types.CodeType = compile(tree, module.__file__ or "", "exec")
    for name in mutant.path:
        code = next(one for one in code.co_consts if isinstance(one, types.CodeType) and one.co_name == name)
    if code.co_freevars != function.__code__.co_freevars:
        raise CannotPatch(f"{mutant.name}: other names are closed over")
    function.__code__ = code
    node = _node(tree, mutant.path)
    values = dict(vars(module))
    defaults = tuple(_value(one, values) for one in node.args.defaults)
    if defaults != (function.__defaults__ or ()):
        function.__defaults__ = defaults
    for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        if default is not None:
            keywords = function.__kwdefaults__
            if keywords is not None:
                keywords[argument.arg] = _value(default, values)


def _function(module: types.ModuleType, path: tuple[str, ...]) -> types.FunctionType:
    found: Any = module
    for name in path:
        found = vars(found)[name]
    return _bare(found)


def _bare(found: Any) -> types.FunctionType:
    """The function beneath properties, decorators and caches."""
    while True:
        if isinstance(found, property):
            found = found.fget
        elif isinstance(found, staticmethod | classmethod):
            found = found.__func__
        elif hasattr(found, "__wrapped__"):
            found = found.__wrapped__
        elif isinstance(found, types.FunctionType):
            return found
        else:
            raise CannotPatch(f"{found!r} is no function")


def _node(tree: ast.Module, path: tuple[str, ...]) -> Function:
    body: list[ast.stmt] = tree.body
    for name in path[:-1]:
        body = next(one.body for one in body if isinstance(one, ast.ClassDef) and one.name == name)
    return next(one for one in body if isinstance(one, Function) and one.name == path[-1])


def _value(node: ast.expr, names: dict[str, Any]) -> Any:
    return eval(compile(ast.Expression(node), "<default>", "eval"), names)


def _patch_constant(module: types.ModuleType, mutant: Mutant, tree: ast.Module) -> None:
    """Give the constant its new value, here and wherever it has been imported."""
    for statement in tree.body:
        if isinstance(statement, ast.AnnAssign | ast.Assign) and statement.lineno == mutant.first and statement.value is not None:
            target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
            if not isinstance(target, ast.Name):
                break
            old, new = vars(module)[target.id], _value(statement.value, dict(vars(module)))
            for name, other in list(sys.modules.items()):
                if name.startswith(_LOOKED_INTO) and vars(other).get(target.id) is old:
                    setattr(other, target.id, new)
            return
    raise CannotPatch(f"{mutant.name}: no such constant")
