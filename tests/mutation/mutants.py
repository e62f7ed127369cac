"""Which mutants there are: cosmic-ray's and two kinds of our own, but for places where a change changes nothing."""

from __future__ import annotations

import ast
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names

PACKAGE = "airflow_provider_testruns"
#: What decides: what responses mean, what is started, awaited and judged, and what is repeated.
DECISIONS = ("platforms/**/*.py", "lifecycle/**/*.py", "model.py", "judging.py", "transport/policy.py")
_LEFT_OUT = {
    # Made by chance inside cosmic-ray, so that a seed of ours would not repeat them.
    "VariableReplacer",
    "VariableInserter",
    # Hardly ever another behaviour than that of no module at all.
    "RemoveDecorator",
    # The same for None and for members of enums, which is what "is" is used with.
    "ReplaceComparisonOperator_Is_Eq",
    "ReplaceComparisonOperator_IsNot_NotEq",
    "ReplaceComparisonOperator_Eq_Is",
    "ReplaceComparisonOperator_NotEq_IsNot",
}
#: Names of fields, words of a platform, paths; no sentences, which are told to people.
_WORD = re.compile(r"""["'](?=[^"']*[A-Za-z])[\w./-]{1,60}["']""")
_LOGGERS = {"log", "_log", "logger", "_logger"}

Position = tuple[int, int]


class _Word(Operator):
    """Another word where a field, a status or a path is named."""

    def mutation_positions(self, node):
        if node.type == "string" and _WORD.fullmatch(node.value):
            yield node.start_pos, node.end_pos

    def mutate(self, node, index):
        node.value = node.value[0] + "XX" + node.value[1:-1] + "XX" + node.value[-1]
        return node

    @classmethod
    def examples(cls):
        return ()


class _NoRaise(Operator):
    """An error that is not raised."""

    def mutation_positions(self, node):
        if node.type == "raise_stmt":
            yield node.start_pos, node.end_pos

    def mutate(self, node, index):
        return parso.parse(node.get_first_leaf().prefix + "pass").children[0]

    @classmethod
    def examples(cls):
        return ()


_OWN: dict[str, type[Operator]] = {"own/Word": _Word, "own/NoRaise": _NoRaise}


@dataclass(frozen=True)
class Mutant:
    """One change of one place.

    :param path: of the file, from the root of the checkout.
    :param operator: what changes it; with ``occurrence``, the how-manieth place of the file for that operator.
    :param line: where, from 1 on; ``end_line`` is the last one.
    """

    path: str
    operator: str
    occurrence: int
    line: int
    column: int
    end_line: int

    @property
    def name(self) -> str:
        return f"{self.path}:{self.line}:{self.column} {self.operator.split('/')[1]} {self.occurrence}"

    def code(self, checkout: Path) -> str:
        """The file's text with the change in it."""
        changed = mutate_code((checkout / self.path).read_text(), _operator(self.operator), self.occurrence)
        if changed is None:
            raise ValueError(f"{self.name} is not there")
        return changed


def sample(checkout: Path, seed: int, count: int) -> list[Mutant]:
    """So many mutants, in an order that only the code and the seed decide: a longer sample begins with the shorter one.

    Of all mutants of one kind at one place (an operator has a dozen of ``<``) one is taken.
    """
    chance = random.Random(seed)
    places: dict[tuple[str, Position, Position, str], list[Mutant]] = defaultdict(list)
    for pattern in DECISIONS:
        for file in sorted((checkout / PACKAGE).glob(pattern)):
            path = str(file.relative_to(checkout))
            for start, end, mutant in _mutants(path, file.read_text()):
                places[path, start, end, mutant.operator.split("_")[0]].append(mutant)
    order = sorted(places)
    chance.shuffle(order)
    return [chance.choice(places[place]) for place in order][:count]


def _operator(name: str) -> Operator:
    return (_OWN.get(name) or get_operator(name))()


def _mutants(path: str, text: str) -> Iterator[tuple[Position, Position, Mutant]]:
    nodes = list(ast_nodes(get_ast(text)))
    nothing_to_see = list(_nothing_to_see(ast.parse(text)))
    for name in sorted([*operator_names(), *_OWN]):
        if name.split("/")[1] in _LEFT_OUT:
            continue
        operator = _operator(name)
        places = (place for node in nodes for place in operator.mutation_positions(node))
        for occurrence, (start, end) in enumerate(places):
            if not any(first <= start < last for first, last in nothing_to_see):
                yield start, end, Mutant(path, name, occurrence, start[0], start[1], end[0])


def _nothing_to_see(tree: ast.Module) -> Iterator[tuple[Position, Position]]:
    """Where a change makes no difference that a test could, or should, see: types, docstrings, what is logged."""
    for node in ast.walk(tree):
        yield from map(_range, _unseen(node))


def _unseen(node: ast.AST) -> Iterable[ast.expr | ast.stmt]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            if node.returns:
                yield node.returns
        case ast.ClassDef():
            # "slots" and the like: its form.
            yield from node.decorator_list
            yield from node.bases
        case ast.arg(annotation=ast.expr() as annotation) | ast.AnnAssign(annotation=annotation):
            yield annotation
        case ast.Expr(value=ast.Constant()):
            yield node
        case ast.Call(func=ast.Name(id="cast" | "TypeVar" | "isinstance" | "getLogger")):
            yield from node.args
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name))) if name in _LOGGERS:
            yield node
        case ast.Assign(targets=[ast.Name(id="__all__")]):
            yield node
        case ast.Assign(value=ast.BinOp(op=ast.BitOr()) as union) if all(
            isinstance(each, ast.Name | ast.Attribute | ast.Subscript | ast.BinOp | ast.Constant)
            for each in (union.left, union.right)
        ):
            yield node
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            yield node


def _range(node: ast.expr | ast.stmt) -> tuple[Position, Position]:
    """parso counts columns in characters, ast in bytes: the same, as the code is ASCII where it matters."""
    return (node.lineno, node.col_offset), (node.end_lineno or node.lineno, node.end_col_offset or 0)
