"""Execute the committed notebooks of this repository, without output or metadata that depends on the machine."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

from ppo_lab.notebook.headless.fast import FAST_MODE

# CRITICAL: a kernel otherwise logs that it uses TCP, and that it is being shut down
KERNEL_OPTIONS: dict[str, Any] = {"kernel_name": "python3", "extra_arguments": ["--IPKernelApp.log_level=CRITICAL"]}
KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
LANGUAGE = {"language_info": {"name": "python"}}
STAMP = "ppo_lab"  # key of the notebook's metadata: {"source_sha256": ...}


def regenerate(path: Path) -> None:
    """Execute a notebook in place, in full, and stamp it with the hash of its sources.

    It runs in a temporary folder with a copy of config.yaml, so no output contains a path of this machine. Raises
    nbclient's CellExecutionError, and then leaves the file unchanged.
    """
    notebook = nbformat.read(path, as_version=4)
    os.environ.pop(FAST_MODE, None)
    with tempfile.TemporaryDirectory() as folder:
        for place in path.resolve().parents:
            if (place / "config.yaml").is_file():
                shutil.copy(place / "config.yaml", folder)
                break
        client = NotebookClient(
            notebook,
            **KERNEL_OPTIONS,
            timeout=None,
            resources={"metadata": {"path": folder}},
            store_widget_state=False,
            record_timing=False,
            coalesce_streams=True,
        )
        client.execute()
    clean(notebook)
    notebook.metadata[STAMP] = {"source_sha256": source_sha256(notebook)}
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


def clean(notebook: Any) -> None:
    """Remove metadata that depends on the machine: keep the kernel's name, the language, and the tags of cells."""
    notebook.metadata = nbformat.from_dict({**KERNEL, **LANGUAGE})
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})


def source_sha256(notebook: Any) -> str:
    """Return the SHA-256 of the types and sources of all cells, from which the outputs were made."""
    sources = [[cell["cell_type"], "".join(cell["source"])] for cell in notebook["cells"]]
    return hashlib.sha256(json.dumps(sources, ensure_ascii=False).encode()).hexdigest()
