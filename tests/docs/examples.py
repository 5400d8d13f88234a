"""The examples of the documentation: where they stand, and how one is run.

Two kinds. In Markdown and in docstrings a block fenced as ```` ```python ```` runs from top to bottom; the blocks of
one text share their names, as a reader who follows it does, and may `await` at the top level. One that cannot run
(half a function, a wait of an hour) says ```` ```python fragment ```` and only has to compile. In docstrings there are
also `>>>` examples, whose output is compared; they see the names of their module and the public ones, nothing else.
"""

import ast
import asyncio
import doctest
import importlib
import inspect
import re
import textwrap
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src"

FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<code>.*?)^(?P=indent)```[ ]*$", re.MULTILINE | re.DOTALL)
QUALIFIED = re.compile(r"\A(?:\w+\.)+(?=\w+(?::|\Z))")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of Python, and the line of the file on which its code begins."""

    code: str
    line: int
    runs: bool


@dataclass(frozen=True, slots=True)
class Text:
    """Something that may hold examples: a document, or the docstring of one object."""

    path: Path
    name: str
    content: str
    line: int = 1  # of the file, where the content begins
    module: str | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def blocks(self) -> list[Block]:
        return list(_blocks(self.content, self.line))

    @property
    def has_example(self) -> bool:
        return ">>> " in self.content or any(block.runs for block in self.blocks)


def documents() -> list[Text]:
    """The Markdown files that readers are sent to."""
    paths = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
    return [Text(path, str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")) for path in sorted(paths)]


def docstrings() -> list[Text]:
    """Every docstring of the package, found in the source: decorated and lazy objects are not missed."""
    return [text for path in sorted(SOURCES.rglob("*.py")) for text in _docstrings_of(path)]


def _docstrings_of(path: Path) -> Iterator[Text]:
    parts = path.relative_to(SOURCES).with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def walk(node: ast.AST, qualname: str) -> Iterator[Text]:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if not isinstance(node, ast.Module):
                qualname = f"{qualname}.{node.name}".lstrip(".")
            # Not cleaned: the lines of the content are then the lines of the file.
            if content := ast.get_docstring(node, clean=False):
                yield Text(path, f"{module}:{qualname}".rstrip(":"), content, node.body[0].lineno, module)
        for child in ast.iter_child_nodes(node):
            # What is in an expression has no docstring, and is most of a file.
            if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
                yield from walk(child, qualname)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), "")


def _blocks(content: str, first_line: int) -> Iterator[Block]:
    for fence in FENCE.finditer(content):
        language, *words = fence["info"].split() or [""]
        if language == "python":
            line = first_line + content.count("\n", 0, fence.start("code"))
            if words not in ([], ["fragment"]):
                raise ValueError(f"line {line - 1}: a block says ```python or ```python fragment, not {fence[0]!r}")
            yield Block(textwrap.dedent(fence["code"]), line, runs=not words)


def run_blocks(text: Text, module: types.ModuleType) -> None:
    """Compile every block of a text, and run in the module those that are not fragments, one after the other."""
    for block in text.blocks:
        # Empty lines in front give tracebacks the line of the file.
        source = "\n" * (block.line - 1) + block.code
        code = compile(source, str(text.path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        if block.runs and inspect.iscoroutine(ended := eval(code, module.__dict__)):
            asyncio.run(ended)


def run_prompts(text: Text, module: types.ModuleType) -> str:
    """Run the `>>>` examples of a docstring in the module; what differed from the expected output, or nothing."""
    test = doctest.DocTestParser().get_doctest(text.content, module.__dict__, str(text), str(text.path), text.line - 1)
    differences: list[str] = []
    runner = doctest.DocTestRunner(_Checker(), verbose=False, optionflags=doctest.ELLIPSIS)
    runner.run(test, out=differences.append, clear_globs=False)
    return "".join(differences)


class _Checker(doctest.OutputChecker):
    """Takes `TokenError: ...` for `perdure.errors.TokenError: ...`: users import it from somewhere else anyway."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return super().check_output(want, got, optionflags) or super().check_output(
            want, QUALIFIED.sub("", got), optionflags
        )


def visible_names(text: Text) -> dict[str, object]:
    """What an example sees before its first line: in a docstring the names of its module and the public ones."""
    if text.module is None:
        return {}
    public = importlib.import_module("perdure")
    own = importlib.import_module(text.module)
    return {name: getattr(public, name) for name in public.__all__} | vars(own)
