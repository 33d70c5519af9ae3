"""Links within the documentation lead somewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.docs.pages import DOCS, ROOT, anchors, links, name, pages


@pytest.mark.parametrize("page", pages(), ids=name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    """Files exist, and so do the headings that are pointed to."""
    assert [link for link in links(page) if not leads_somewhere(page, link)] == []


def leads_somewhere(page: Path, link: str) -> bool:
    """Whether a link leads to a file of the project, or out of it to the net."""
    if "://" in link or link.startswith("mailto:"):
        return True
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists() or not target.is_relative_to(ROOT):
        return False
    return not anchor or anchor in anchors(target)


def test_every_page_can_be_reached_from_the_readme() -> None:
    """A page that nothing links to is read by nobody."""
    reached = {ROOT / "README.md"}
    waiting = list(reached)
    while waiting:
        page = waiting.pop()
        for link in links(page):
            target = (page.parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md" and target.exists() and target not in reached:
                reached.add(target)
                waiting.append(target)
    assert set(DOCS.rglob("*.md")) <= reached


@pytest.mark.parametrize("page", pages(), ids=name)
def test_names_no_place_outside_of_the_project(page: Path) -> None:
    """What somebody reads elsewhere must hold there: no path of the machine it was written on."""
    assert str(ROOT) not in page.read_text("utf-8")
