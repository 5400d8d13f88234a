"""The long modules, functions and classes of the package, and the ones that are nested deeply.

Run as a program it prints them and always succeeds: the numbers are questions to an author (which second noun is in
this module, which second verb in this function), and a split that only satisfies a number is worse than the long one.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MODULE_LINES = 400
BODY_LINES = 40
PUBLIC_METHODS = 15
NESTING = 3

_BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.TryStar, ast.Match)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, slots=True)
class Size:
    """One thing that is larger than a review would like."""

    where: str
    what: str
    amount: int
    limit: int

    def __str__(self) -> str:
        return f"{self.where}: {self.amount} {self.what} (aim below {self.limit})"


def measure(path: Path, source: str) -> Iterator[Size]:
    """What in this module is past a limit."""
    lines = source.count("\n")
    if lines > MODULE_LINES:
        yield Size(str(path), "lines", lines, MODULE_LINES)
    for node in ast.walk(ast.parse(source)):
        where = f"{path}:{getattr(node, 'lineno', 0)} {getattr(node, 'name', '')}"
        if isinstance(node, _FUNCTIONS):
            if (length := _body_lines(node)) > BODY_LINES:
                yield Size(where, "lines of body", length, BODY_LINES)
            if (depth := _nesting(node)) > NESTING:
                yield Size(where, "levels of nesting", depth, NESTING)
        elif isinstance(node, ast.ClassDef) and (methods := _public_methods(node)) > PUBLIC_METHODS:
            yield Size(where, "public methods", methods, PUBLIC_METHODS)


def _body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def _nesting(node: ast.AST) -> int:
    return max((isinstance(child, _BLOCKS) + _nesting(child) for child in _children(node)), default=0)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (*_FUNCTIONS, ast.ClassDef, ast.Lambda)):
            continue  # measured on its own
        is_elif = isinstance(node, ast.If) and node.orelse == [child] and isinstance(child, ast.If)
        # An elif is a nested If to the parser and the same level to a reader.
        yield from _children(child) if is_elif else (child,)


def _public_methods(class_: ast.ClassDef) -> int:
    overloads = {"overload", "setter"}
    return len(
        {
            item.name
            for item in class_.body
            if isinstance(item, _FUNCTIONS)
            and not item.name.startswith("_")
            and not overloads & {getattr(mark, "id", getattr(mark, "attr", "")) for mark in item.decorator_list}
        }
    )


def main() -> None:
    root = Path(__file__).parents[2]
    found = [
        size
        for path in sorted((root / "src").rglob("*.py"))
        for size in measure(path.relative_to(root), path.read_text(encoding="utf-8"))
    ]
    for size in sorted(found, key=lambda size: size.amount / size.limit, reverse=True):
        print(f"  {size}")


if __name__ == "__main__":
    main()
