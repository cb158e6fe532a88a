"""Immutable blocks of tensors: written to disk once, and hard-linked into every later checkpoint that needs them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

PREFIX = "piece-"  # of the file name in a checkpoint


class Piece:
    """An immutable block of tensors and its SHA-256: a leaf of a checkpoint's tree that has a file of its own."""

    def __init__(self, rows: Mapping[str, Tensor], path: Path | None = None) -> None:
        """Keep rows, {name: tensor}, which must not be modified afterwards. path: a file that holds them already."""
        self.rows, self.path = dict(rows), path
        data = to_safetensors(self.rows)
        self.size, self.sha256 = len(data), hashlib.sha256(data).hexdigest()

    def __len__(self) -> int:
        return len(next(iter(self.rows.values())))

    @property
    def name(self) -> str:
        """The name of its file, derived from the content."""
        return f"{PREFIX}{self.sha256[:32]}.safetensors"

    def write(self, folder: Path) -> bool:
        """Write the piece into a folder. Return True if a hard link to its existing file was enough.

        Such a file was synced and verified when it was written. A new file is not synced here.
        """
        target = folder / self.name
        if self.path is not None:
            try:
                os.link(self.path, target)
            except OSError:  # the file was pruned, or the file system does not support hard links
                target.unlink(missing_ok=True)
            else:
                return True
        target.write_bytes(to_safetensors(self.rows))
        return False


def read_piece(path: Path, data: bytes) -> Piece:
    """Return the piece stored in `data`, the content of the file at `path`."""
    return Piece(from_safetensors(data), path)
