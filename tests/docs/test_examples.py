"""Every example that the documentation shows does what it says."""

import sys
import types
from pathlib import Path

import pytest

import perdure

from tests.docs.examples import Text, docstrings, documents, run_blocks, run_prompts, visible_names

DOCSTRINGS = docstrings()
CALLABLE = [name for name in perdure.__all__ if isinstance(getattr(perdure, name, None), type | types.FunctionType)]


@pytest.fixture
def main_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> types.ModuleType:
    """An empty `__main__` in an empty folder: examples ask for `__name__` and write files beside themselves.

    It is in sys.modules because annotations are looked up there, under the name of their module.
    """
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    monkeypatch.chdir(tmp_path)
    return module


def test_the_readme_is_among_the_documents():
    assert any(text.name == "README.md" and text.has_example for text in documents())


@pytest.mark.parametrize("text", [text for text in documents() if text.blocks], ids=str)
def test_the_blocks_of_a_document_run(text: Text, main_module: types.ModuleType):
    run_blocks(text, main_module)


@pytest.mark.parametrize("text", [text for text in DOCSTRINGS if text.has_example or text.blocks], ids=str)
def test_the_examples_of_a_docstring_run(text: Text, main_module: types.ModuleType):
    vars(main_module).update(visible_names(text) | {"__name__": "__main__"})
    run_blocks(text, main_module)
    if differences := run_prompts(text, main_module):
        pytest.fail(differences, pytrace=False)


@pytest.mark.parametrize("name", CALLABLE)
def test_a_public_name_carries_an_example(name: str):
    """In its own docstring or, for a class, in one of its methods."""
    own = [text for text in DOCSTRINGS if text.name.partition(":")[2].split(".")[0] == getattr(perdure, name).__name__]
    assert any(text.has_example for text in own), f"{name}: add an Example to its docstring"


# What runs the examples is held to examples of its own: a runner that finds nothing passes every document.


def document(content: str) -> Text:
    return Text(Path("page.md"), "page.md", content)


def test_a_block_that_fails_shows_the_line_of_the_document(main_module: types.ModuleType):
    text = document("# Title\n\n```python\nx = 1\nassert x == 2\n```\n")
    with pytest.raises(AssertionError) as caught:
        run_blocks(text, main_module)
    assert caught.traceback[-1].lineno == 5 - 1


def test_blocks_share_their_names_and_may_await(main_module: types.ModuleType):
    run_blocks(
        document("```python\nimport asyncio\n```\n\n- item\n\n  ```python\n  y = await asyncio.sleep(0, 7)\n  ```\n"),
        main_module,
    )
    assert vars(main_module)["y"] == 7


def test_a_fragment_is_compiled_and_not_run(main_module: types.ModuleType):
    run_blocks(document("```python fragment\nundefined()\n```\n"), main_module)
    with pytest.raises(SyntaxError):
        run_blocks(document("```python fragment\nhalf an example\n```\n"), main_module)


def test_another_language_is_nobodys_example():
    assert document("```console\n$ make demo\n```\n").blocks == []


def test_a_misspelt_mark_is_refused():
    """Taken for another language, the block would never run again."""
    with pytest.raises(ValueError, match="line 1"):
        _ = document("```python fragmnet\nx\n```\n").blocks


def test_a_prompt_with_another_output_is_a_difference(main_module: types.ModuleType):
    assert run_prompts(document(">>> 1 + 1\n2\n"), main_module) == ""
    assert "Got:\n    2" in run_prompts(document(">>> 1 + 1\n3\n"), main_module)


def test_an_error_may_be_named_without_its_module(main_module: types.ModuleType):
    shown = ">>> raise Unqualified('x')\nTraceback (most recent call last):\nUnqualified: x\n"
    error = type("Unqualified", (Exception,), {"__module__": "far.away"})
    vars(main_module)["Unqualified"] = error
    assert run_prompts(document(shown), main_module) == ""
    assert run_prompts(document(shown.replace(": x", ": y")), main_module) != ""
