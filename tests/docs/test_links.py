"""Links of the documentation lead somewhere: to a file that is there, and to a heading that is in it."""

import re
from pathlib import Path

import pytest

from tests.docs.examples import FENCE, Text, documents

LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ +(?P<title>.+?) *$", re.MULTILINE)


def anchors(content: str) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    titles = (found["title"] for found in HEADING.finditer(FENCE.sub("", content)))
    linked = (re.sub(r"\[(.*?)\]\(.*?\)", r"\1", title) for title in titles)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in linked}


def dead_links(path: Path, content: str) -> list[str]:
    """The links of a page to other pages of the checkout that lead nowhere."""
    dead: list[str] = []
    for found in LINK.finditer(FENCE.sub("", content)):
        target = found["target"]
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        other = (path.parent / name).resolve() if name else path
        if not other.exists() or (anchor and anchor not in anchors(other.read_text(encoding="utf-8"))):
            dead.append(target)
    return dead


@pytest.mark.parametrize("text", documents(), ids=str)
def test_a_document_has_no_dead_links(text: Text):
    # The pattern for a new page names pages that are not there.
    allowed = ["NNNN-title.md"] if text.path.name == "0000-template.md" else []
    assert [link for link in dead_links(text.path, text.content) if link not in allowed] == []


def test_every_page_can_be_reached_from_the_list_of_pages():
    index = next(text for text in documents() if text.name == "docs/README.md")
    listed = {
        (index.path.parent / found["target"].partition("#")[0]).resolve() for found in LINK.finditer(index.content)
    }
    pages = {text.path for text in documents() if text.name.startswith("docs/")}
    assert sorted(str(page) for page in pages - listed - {index.path}) == []


def test_a_dead_link_is_found(tmp_path: Path):
    """The control."""
    page = tmp_path / "page.md"
    page.write_text(
        "# A `title`, of *two*\n\n[here](#a-title-of-two) [gone](other.md) [no](#nothing) [web](https://x.y)\n"
    )
    assert dead_links(page, page.read_text()) == ["other.md", "#nothing"]
