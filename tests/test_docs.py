"""What the documents name exists."""

from __future__ import annotations

import re
import runpy
import tempfile
from pathlib import Path

import pytest

import ppo_lab
from ppo_lab.config import Config
from ppo_lab.config.loading import override
from ppo_lab.config.yaml_text import parse_yaml

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


MODELS = (ROOT / "docs" / "models.md").read_text()


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", MODELS, re.DOTALL))
def test_the_settings_on_the_page_of_models_exist(block):
    override(Config(), parse_yaml(block))


def test_the_body_on_the_page_of_models_learns():
    first = re.findall(r"```python\n(.*?)```", MODELS, re.DOTALL)[0]
    names = runpy.run_path(written(first))
    trainer = ppo_lab.Trainer(override(names["config"], {"run.root": None, "ppo.total_timesteps": 2048}))
    assert isinstance(trainer.state.model.actor_body, names["Mine"])
    assert len(list(trainer)) == 1


def written(code):
    """The path of a script with the imports that a reader has above it."""
    path = Path(tempfile.mkdtemp()) / "page.py"
    path.write_text(f"import torch\nimport ppo_lab\n{code}")
    return str(path)
