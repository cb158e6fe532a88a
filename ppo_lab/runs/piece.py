"""Rows that never change again: written to disk once, and linked into every later checkpoint that needs them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

PREFIX = "piece-"  # of the file's name in a checkpoint


class Piece:
    """An immutable block of tensors with its SHA-256. In a checkpoint's tree it is a leaf with a file of its own."""

    def __init__(self, rows: Mapping[str, Tensor], path: Path | None = None) -> None:
        """Hold rows: {name: tensor}, which must not be written to again. path: the file that holds them already."""
        self.rows, self.path = dict(rows), path
        data = to_safetensors(self.rows)
        self.size, self.sha256 = len(data), hashlib.sha256(data).hexdigest()

    def __len__(self) -> int:
        return len(next(iter(self.rows.values())))

    @property
    def name(self) -> str:
        """Of its file: it follows from the content."""
        return f"{PREFIX}{self.sha256[:32]}.safetensors"

    def write(self, folder: Path) -> bool:
        """Put it into a folder. True: as a hard link to a file that was written, synced and read back before."""
        target = folder / self.name
        if self.path is not None:
            try:
                os.link(self.path, target)
            except OSError:  # it was pruned, or this file system has no links
                target.unlink(missing_ok=True)
            else:
                return True
        target.write_bytes(to_safetensors(self.rows))
        return False


def read_piece(path: Path, data: bytes) -> Piece:
    """Return the piece that `data`, the content of the file at `path`, holds."""
    return Piece(from_safetensors(data), path)
