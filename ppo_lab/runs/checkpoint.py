"""Checkpoints: folders of safetensors and JSON files, written atomically and verified by checksum when read.

    <step>/  model.safetensors  optimizer.safetensors  state.safetensors  state.json  MANIFEST.json (sizes, SHA-256)
             piece-<SHA-256>.safetensors for each `Piece` in the tree: a hard link, if an earlier checkpoint has it, too

A checkpoint cannot contain code, and no file is used before its checksum is verified.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

from ppo_lab.errors import RunError
from ppo_lab.runs.files import TEMPORARY, sync, temporary_for, write_all
from ppo_lab.runs.piece import PREFIX, Piece, read_piece

FORMAT, WITH_PIECES = 2, 3  # without pieces it gets the older number, so that older versions can read it
MANIFEST = "MANIFEST.json"
FILES = ("model.safetensors", "optimizer.safetensors", "state.safetensors", "state.json")

PIECE = re.compile(rf"{PREFIX}[0-9a-f]{{32}}\.safetensors")
STEP = re.compile(r"0|[1-9][0-9]{0,17}")
CheckpointTree = Mapping[str, Any]  # nested dictionaries, lists, tensors and plain values


def save_checkpoint(
    folder: Path, step: int, tree: CheckpointTree, also: Sequence[Path] = (), renew: bool = False
) -> Path:
    """Write `tree` (with keys model, optimizer and others) atomically to folder/<step>. Return the path.

    The files are written to a temporary folder next to it and synced to disk, then the folder is renamed and read back.
    A `Piece` that an earlier checkpoint has is linked, and not read back again.

    also: other files that must be on disk before the checkpoint is.
    renew: replace a whole checkpoint of this step, if there is one; by default it is kept.

    Raises RunError if the checkpoint cannot be written or is different when read back. Earlier ones are not changed.
    """
    path = folder / str(step)
    temporary = temporary_for(path)
    try:
        if path.exists() and not renew and not problem_of(path):
            return path
        folder.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        contents, pieces = _encode(tree)
        linked = {name for name, piece in pieces.items() if piece.write(temporary)}
        contents[MANIFEST] = _manifest(step, {name: _entry(data) for name, data in contents.items()} | _entries(pieces))
        write_all(temporary, contents, [*also, *(temporary / name for name in pieces.keys() - linked)])
        sync(temporary)
        if path.exists():
            _remove(path)  # the broken or older one
        temporary.rename(path)
        sync(folder)
        if problem := problem_of(path, linked):
            raise OSError(0, f"what was read back is not what was written ({problem})")
        for name, piece in pieces.items():
            piece.path = path / name
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(f"cannot save checkpoint {step} in {folder}: {reason}; earlier ones are untouched") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read the tree saved in `path`. Raise RunError with the reason if a file is missing, damaged or changed."""
    contents = _read_verified(path)
    try:
        tensors = {name: from_safetensors(contents[name]) for name in FILES if name.endswith(".safetensors")}
        pieces = {name: read_piece(path / name, data) for name, data in contents.items() if name.startswith(PREFIX)}
        plain = json.loads(contents["state.json"])
        return {key: _plant(value, {**tensors[_file_of(key)], **pieces}) for key, value in plain.items()}
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RunError(f"checkpoint {path}: {type(error).__name__}: {' '.join(str(error).split())[:300]}") from None


def problem_of(path: Path, known: Collection[str] = ()) -> str:
    """Return why the checkpoint at `path` is not whole; "" if it is. known: files that were verified before."""
    try:
        _read_verified(path, known)
    except RunError as error:
        return str(error)
    return ""


def checkpoints(folder: Path) -> list[int]:
    """Return the steps that have a checkpoint folder, oldest first, whole or not."""
    if not folder.is_dir():
        return []
    return sorted(int(place.name) for place in folder.iterdir() if STEP.fullmatch(place.name) and place.is_dir())


def newest_whole(folder: Path) -> tuple[int | None, list[str]]:
    """Return the newest step with a whole checkpoint (None: there is none), and why newer ones were skipped."""
    passed: list[str] = []
    for step in reversed(checkpoints(folder)):
        problem = problem_of(folder / str(step))
        if not problem:
            return step, passed
        passed.append(problem)
    return None, passed


def sweep(folder: Path) -> None:
    """Remove temporary files and folders that a crash during a save left in a run folder.

    Removes those of processes that no longer exist, and of this process: it has locked the run and is not saving now.
    """
    for place in folder.glob(".tmp-*") if folder.is_dir() else ():
        match = TEMPORARY.fullmatch(place.name)
        if match and (int(match[1]) == os.getpid() or not _alive(int(match[1]))):
            _discard(place)


def prune(folder: Path, keep_last: int, keep_every: int, protect: set[int]) -> None:
    """Remove old checkpoints. Keep the last `keep_last`, and the steps in `protect`.

    keep_every: also keep the first one at or after each multiple of this number of steps; 0: no others.
    """
    steps = checkpoints(folder)
    kept = set(steps[-keep_last:]) | protect
    if keep_every:
        firsts: dict[int, int] = {}
        for step in steps:
            firsts.setdefault(step // keep_every, step)
        kept |= set(firsts.values())
    for step in set(steps) - kept:
        _remove(folder / str(step))


def _remove(path: Path) -> None:
    """Remove a folder. It is renamed first, because a partly removed folder must not look like a checkpoint."""
    doomed = temporary_for(path)
    path.rename(doomed)
    _discard(doomed)


def _discard(place: Path) -> None:
    """Remove a temporary file or folder. On failure leave it to the next `sweep`."""
    with suppress(OSError):
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place, ignore_errors=True)
        else:
            place.unlink()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True  # the process of another user, or a number too large for a process
    return True


def _entry(data: bytes) -> dict[str, Any]:
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _entries(pieces: Mapping[str, Piece]) -> dict[str, dict[str, Any]]:
    return {name: {"size": piece.size, "sha256": piece.sha256} for name, piece in sorted(pieces.items())}


def _manifest(step: int, files: Mapping[str, Mapping[str, Any]]) -> bytes:
    format_ = WITH_PIECES if len(files) > len(FILES) else FORMAT
    return json.dumps({"format": format_, "step": step, "files": files}, indent=1).encode()


def _read_verified(path: Path, known: Collection[str] = ()) -> dict[str, bytes]:
    """Read every file except those in `known` and check it against the manifest. Return {name: content}.

    Raises RunError if a file is missing, or its size or SHA-256 differs.
    """
    try:
        text = (path / MANIFEST).read_bytes()
        manifest = json.loads(text)
        if manifest["format"] not in (FORMAT, WITH_PIECES):
            raise RunError(f"checkpoint {path}: format {manifest['format']}, this version reads up to {WITH_PIECES}")
        if str(manifest["step"]) != path.name:
            raise RunError(f"checkpoint {path}: its manifest belongs to step {manifest['step']}")
        contents, entries = {}, {}
        for name in [*FILES, *(name for name in manifest["files"] if PIECE.fullmatch(name))]:
            if name in known:
                entries[name] = manifest["files"][name]
                continue
            contents[name] = (path / name).read_bytes()
            entries[name] = _entry(contents[name])
            if manifest["files"][name] != entries[name]:
                raise RunError(f"checkpoint {path}: {name} is not what was written (size or SHA-256 differ)")
        if text != _manifest(manifest["step"], entries):
            raise RunError(f"checkpoint {path}: {MANIFEST} is not what was written")
    except RunError:
        raise
    except OSError as error:
        raise RunError(f"checkpoint {path}: {Path(str(error.filename)).name}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise RunError(f"checkpoint {path}: {MANIFEST} cannot be read") from None
    return contents


def _file_of(key: str) -> str:
    return f"{key}.safetensors" if key in ("model", "optimizer") else "state.safetensors"


def _encode(tree: CheckpointTree) -> tuple[dict[str, bytes], dict[str, Piece]]:
    """Encode a tree. Return {file name: content} and {file name: piece}.

    Tensors are stored as safetensors; the structure of the tree and its plain values as JSON.
    """
    tensors: dict[str, dict[str, Tensor]] = {name: {} for name in FILES if name.endswith(".safetensors")}
    pieces: dict[str, Piece] = {}
    plain = {key: _pick(value, tensors[_file_of(key)], pieces, key) for key, value in tree.items()}
    contents = {name: to_safetensors(picked) for name, picked in tensors.items()}
    contents["state.json"] = json.dumps(plain, indent=1).encode()
    return contents, pieces


def _pick(value: Any, tensors: dict[str, Tensor], pieces: dict[str, Piece], name: str) -> Any:
    """Replace every tensor by {"$tensor": its name} and add it to `tensors`. Pieces are handled in the same way."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()  # a copy: safetensors rejects shared memory
        return {"$tensor": name}
    if isinstance(value, Piece):
        pieces[value.name] = value
        return {"$tensor": value.name}
    if isinstance(value, Mapping):
        return {str(key): _pick(item, tensors, pieces, f"{name}/{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_pick(item, tensors, pieces, f"{name}/{i}") for i, item in enumerate(value)]
    return value


def _plant(value: Any, tensors: Mapping[str, Any]) -> Any:
    """Replace every {"$tensor": name} by its tensor or piece: the inverse of `_pick`."""
    if isinstance(value, dict):
        if value.keys() == {"$tensor"}:
            return tensors[value["$tensor"]]
        return {key: _plant(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_plant(item, tensors) for item in value]
    return value
