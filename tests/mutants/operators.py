"""What a mutant is: one small change of one function's syntax tree, and where it stands."""

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

_COMPARE: Final[dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_ARITHMETIC: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
}
_NAMES: Final = {"min": "max", "max": "min", "any": "all", "all": "any"}
_COMMUTATIVE: Final = frozenset({"min", "max", "after"})  # swapped arguments give the same
_UNREACHABLE: Final = frozenset({"assert_never"})
_WORDS: Final = frozenset({"sentence"})

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """``path`` leads from the module to the outermost function that contains the change (empty: a constant of the module);
    ``first`` to ``last`` are the lines of the statement; ``node`` and ``choice`` say which change it is.
    """

    module: str
    path: tuple[str, ...]
    first: int
    last: int
    line: int
    node: int
    choice: int
    change: str

    @property
    def name(self) -> str:
        """What names it in lists, stable while the lines above it change."""
        return f"{self.module}:{'.'.join(self.path)}: {self.change}"


def _text(node: ast.AST) -> str:
    said = " ".join(ast.unparse(node).split())
    return said if len(said) <= 90 else f"{said[:87]}..."


def _said_for_people(node: ast.Constant) -> bool:
    return isinstance(node.value, str) and " " in node.value


def _means_nothing(node: ast.expr) -> bool:
    """``None``, or ``False``, for which nobody takes ``None`` amiss; that it becomes ``True`` is another mutant."""
    return isinstance(node, ast.Constant) and (node.value is None or node.value is False)


def _calls(node: ast.AST, names: frozenset[str]) -> bool:
    called = node.value if isinstance(node, ast.Expr) else node
    return isinstance(called, ast.Call) and isinstance(called.func, ast.Name) and called.func.id in names


def changes(node: ast.AST) -> list[ast.AST]:
    """All nodes that may stand in the place of ``node``, each wrong in one small way."""
    out: list[ast.AST] = []
    match node:
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            for place, operator in enumerate(ops):
                for other in _COMPARE[type(operator)]:
                    out.append(ast.Compare(left, [*ops[:place], other(), *ops[place + 1 :]], comparators))
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _ARITHMETIC:
            out.append(ast.BinOp(left, _ARITHMETIC[type(operator)](), right))
        case ast.BoolOp(op=operator, values=values):
            out.append(ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values))
            out += [ast.BoolOp(operator, [*values[:place], *values[place + 1 :]]) for place in range(len(values))]
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            out.append(operand)
        case ast.Constant(value=bool() as value):
            out.append(ast.Constant(not value))
        case ast.Constant(value=int() as value):
            out.append(ast.Constant(value + 1))
        case ast.Constant(value=str() as value) if not _said_for_people(node):
            out.append(ast.Constant(value + "X"))
        case ast.Constant(value=bytes() as value):
            out.append(ast.Constant(value + b"X"))
        case ast.IfExp(body=body, orelse=orelse):
            out += [body, orelse]
        case ast.If(body=body, orelse=orelse):
            out += [ast.If(ast.Constant(value), body, orelse) for value in (True, False)]
        case ast.While(body=body, orelse=orelse):
            out.append(ast.While(ast.Constant(False), body, orelse))
        case ast.Return(value=value) if value is not None and not _means_nothing(value):
            out.append(ast.Return(ast.Constant(None)))
        case ast.Call(func=func, args=args, keywords=keywords):
            if isinstance(func, ast.Name) and func.id in _NAMES:
                out.append(ast.Call(ast.Name(_NAMES[func.id], ast.Load()), args, keywords))
            commutes = isinstance(func, ast.Name) and func.id in _COMMUTATIVE
            if len(args) >= 2 and not commutes and not any(isinstance(one, ast.Starred) for one in args[:2]):
                out.append(ast.Call(func, [args[1], args[0], *args[2:]], keywords))
        case ast.comprehension(target=target, iter=iterated, ifs=ifs, is_async=is_async) if ifs:
            out.append(ast.comprehension(target, iterated, [], is_async))
        case ast.Expr(value=ast.Call()) | ast.Raise() | ast.Delete() | ast.Continue() | ast.Break() | ast.AugAssign():
            out.append(ast.Pass())
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript(), *_]):
            out.append(ast.Pass())
        case _:
            pass
    return out


def _skipped(node: ast.AST) -> bool:
    """What is not mutated: annotations, names in quotes, unreachable ends, invariants whose removal nothing can show."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    return isinstance(node, ast.JoinedStr) or _calls(node, _UNREACHABLE)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "decorator_list", "type_params"}:
            continue
        if isinstance(node, ast.keyword) and node.arg in _WORDS:
            continue
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, ast.AST):
                yield one


def walk(root: ast.AST) -> Iterator[ast.AST]:
    """All nodes that may be changed, in an order that depends on the tree alone."""
    if not _skipped(root):
        yield root
        for child in _children(root):
            yield from walk(child)


def _parents(root: ast.AST) -> dict[int, ast.AST]:
    return {id(child): parent for parent in ast.walk(root) for child in ast.iter_child_nodes(parent)}


def _statement_lines(root: ast.AST, node: ast.AST, parents: dict[int, ast.AST]) -> tuple[int, int]:
    """The lines whose execution reaches ``node``: its statement, or the head of a compound one; for a default, the function."""
    statement = node
    while not isinstance(statement, ast.stmt) and id(statement) in parents:
        statement = parents[id(statement)]
    if not isinstance(statement, ast.stmt):
        statement = next(one for one in ast.walk(root) if isinstance(one, ast.stmt))
    last = statement.end_lineno or statement.lineno
    body = getattr(statement, "body", None)
    if isinstance(body, list) and body and not isinstance(statement, Function):
        last = max(statement.lineno, body[0].lineno - 1)
    return statement.lineno, last


def _functions(tree: ast.Module) -> Iterator[tuple[tuple[str, ...], Function]]:
    for top in tree.body:
        if isinstance(top, Function):
            yield (top.name,), top
        elif isinstance(top, ast.ClassDef):
            for inner in top.body:
                if isinstance(inner, Function):
                    yield (top.name, inner.name), inner


def mutants_of(module: str, source: str) -> list[Mutant]:
    """All mutants of one module."""
    tree = ast.parse(source)
    found: list[Mutant] = []
    roots: list[tuple[tuple[str, ...], ast.AST]] = list(_functions(tree))
    roots += [((), one) for one in tree.body if isinstance(one, ast.AnnAssign | ast.Assign) and _is_constant(one)]
    twins: Counter[tuple[tuple[str, ...], str]] = Counter()
    numbers = {id(node): number for number, node in enumerate(ast.walk(tree))}
    for path, root in roots:
        parents = _parents(root)
        for node in walk(root):
            for choice, change in enumerate(changes(node)):
                first, last = _statement_lines(root, node, parents)
                text = f"{_shown(node)} -> {_shown(change)}"
                twins[path, text] += 1
                again = twins[path, text]
                found.append(
                    Mutant(
                        module=module,
                        path=path,
                        first=first,
                        last=last,
                        line=getattr(node, "lineno", first),
                        node=numbers[id(node)],
                        choice=choice,
                        change=text if again == 1 else f"{text} #{again}",
                    )
                )
    return found


def _shown(node: ast.AST) -> str:
    if isinstance(node, ast.If | ast.While):
        return f"{type(node).__name__.lower()} {_text(node.test)}"
    if isinstance(node, ast.comprehension):
        return f"for {_text(node.target)} in {_text(node.iter)}{''.join(' if ' + _text(one) for one in node.ifs)}"
    return _text(ast.fix_missing_locations(copy.deepcopy(node)))


def _is_constant(node: ast.AnnAssign | ast.Assign) -> bool:
    """A plain value given to a name of the module, not a type."""
    values = (ast.Constant, ast.BinOp, ast.UnaryOp, ast.Dict, ast.Call, ast.Tuple)
    if not isinstance(node.value, values):
        return False
    return isinstance(node, ast.Assign) or (
        isinstance(node.annotation, ast.Name | ast.Subscript) and "Final" in _text(node.annotation)
    )


def changed(source: str, mutant: Mutant) -> ast.Module:
    """The module's tree with the change made."""
    tree = ast.parse(source)
    node = next(one for number, one in enumerate(ast.walk(tree)) if number == mutant.node)
    replacement = changes(node)[mutant.choice]
    if hasattr(node, "lineno"):
        ast.copy_location(replacement, node)

    class Swap(ast.NodeTransformer):
        def visit(self, one: ast.AST) -> Any:
            return replacement if one is node else self.generic_visit(one)

    swapped: ast.Module = Swap().visit(tree)
    return ast.fix_missing_locations(swapped)
