"""What the documents name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DETAILS = (ROOT / "docs" / "implementation_details.md").read_text()


@pytest.mark.parametrize(("file", "name"), sorted(set(re.findall(r"`([\w/]+\.py)` `(\w+)`", DETAILS))))
def test_the_place_of_a_detail_exists(file, name):
    assert re.search(rf"^(def|class) {name}\b", (ROOT / "ppo_lab" / file).read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(test_\w+\.py)`", DETAILS))))
def test_the_test_of_a_detail_exists(name):
    assert list((ROOT / "tests").rglob(name))


def test_links_between_files_of_the_project_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
