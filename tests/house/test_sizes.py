"""The report of sizes sees what it is meant to see; what it finds is for authors to judge."""

from pathlib import Path

from tests.house.sizes import BODY_LINES, MODULE_LINES, NESTING, PUBLIC_METHODS, measure


def found(source: str) -> list[str]:
    return [size.what for size in measure(Path("module.py"), source)]


def test_a_module_that_is_too_long_is_reported():
    assert found("\n" * MODULE_LINES) == []
    assert found("\n" * (MODULE_LINES + 1)) == ["lines"]


def test_a_docstring_does_not_make_a_function_long():
    docstring = '    """' + "\n" * BODY_LINES + '    """\n'
    assert found("def f():\n" + docstring + "    x = 1\n" * BODY_LINES) == []
    assert found("def f():\n" + docstring + "    x = 1\n" * (BODY_LINES + 1)) == ["lines of body"]


def nested(levels: int) -> str:
    inner = "".join("    " * (level + 1) + "if x:\n" for level in range(levels))
    return "def f(x):\n" + inner + "    " * (levels + 1) + "pass\n"


def test_deep_nesting_is_reported():
    assert found(nested(NESTING)) == []
    assert found(nested(NESTING + 1)) == ["levels of nesting"]


def test_a_chain_of_elif_is_one_level():
    chain = "def f(x):\n    if x == 0:\n        pass\n" + "".join(
        f"    elif x == {n}:\n        pass\n" for n in range(1, 2 * NESTING)
    )
    assert found(chain) == []


def test_an_overload_and_a_private_method_are_no_public_methods():
    methods = "".join(f"    def m{n}(self): ...\n" for n in range(PUBLIC_METHODS))
    extra = "    def _p(self): ...\n    @overload\n    def o(self): ...\n"
    assert found("class C:\n" + methods + extra) == []
    assert found("class C:\n" + methods + "    def one_more(self): ...\n") == ["public methods"]
