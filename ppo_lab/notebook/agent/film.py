"""Encodes the frames of an episode as a film: an animated PNG for the notebook, or an mp4 file.

An animated PNG also plays in a notebook that is not trusted, and it survives nbconvert and git.
"""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ppo_lab.errors import ConfigError

MOST_FRAMES, LEAST_FRAMES = 150, 10
MOST_BYTES = 150_000
LAST = 1000.0  # milliseconds that the last frame is shown before the film repeats
BESIDE_FPS = 4.0  # at most this many changes a second in the column beside the scene
SUFFIXES = (".mp4", ".png")
UNLIKE = 90.0  # distance in RGBA (at most 255 * sqrt(4)) from which two colours count as different
LEVELS = 16  # per channel (red, green, blue, alpha) of the table in which colours are looked up


class Shot(NamedTuple):
    """A frame of a film, and the env step it belongs to."""

    step: int  # of the episode, from 0
    frame: Callable[[], Image.Image]


class Film:
    """The frames of an episode of unknown length: evenly spaced, never more than 2 * MOST_FRAMES of them."""

    def __init__(self, fps: float, beside: int = 0) -> None:
        """Create an empty film.

        fps: env steps per second. beside: pixels: width of a column of text at the right, which changes less often.
        """
        self._fps, self._beside = fps, beside
        self._shots: list[Shot] = []
        self._stride = 1  # env steps between two frames

    def wants(self, step: int) -> bool:
        """Return whether the film needs the picture before env step number `step`."""
        return step % self._stride == 0

    def add(self, step: int, frame: Callable[[], Image.Image]) -> None:
        """Add the picture before env step number `step`. `frame` returns it, RGB or RGBA, and is called repeatedly."""
        self._shots.append(Shot(step, frame))
        if len(self._shots) > 2 * MOST_FRAMES:
            self._shots = self._shots[::2]
            self._stride *= 2

    def png(self) -> bytes:
        """Encode as an animated PNG that plays in real time, of at most MOST_FRAMES frames and about MOST_BYTES."""
        shots = _evenly(self._shots, MOST_FRAMES)
        for colours in (32, 16, 8):
            data = self._encode(shots, colours)
            if len(data) <= MOST_BYTES or self._beside:  # fewer colours save little where most of the picture is text
                break
        while len(data) > MOST_BYTES and len(shots) > LEAST_FRAMES:
            shots = _evenly(shots, max(LEAST_FRAMES, int(0.95 * len(shots) * MOST_BYTES / len(data))))
            data = self._encode(shots, colours=16)
        return data

    def _encode(self, shots: Sequence[Shot], colours: int) -> bytes:
        """Encode with one palette for all frames, so that parts that do not move need no bytes."""
        # from the whole episode: a colour may first appear late, such as the arrow of the pendulum
        samples = [shot.frame() for shot in shots[:: max(1, len(shots) // 6)]]
        reduced = _clear_palette(samples, colours) if samples[0].mode == "RGBA" else _palette(samples, colours)
        steps = [shot.step for shot in shots]
        shown = [1000.0 * (after - step) / self._fps for step, after in pairwise(steps)]  # milliseconds
        shown.append(max(1000.0 / self._fps, LAST))
        frames = [reduced(shot.frame()) for shot in shots]
        if self._beside:
            frames, shown = _in_turns(frames, shown, self._beside)
        buffer = io.BytesIO()
        frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:], duration=shown, loop=0)
        return buffer.getvalue()


def _evenly(shots: Sequence[Shot], most: int) -> Sequence[Shot]:
    """Return at most `most` of the shots, evenly spaced, including the first and the last."""
    if len(shots) <= most:
        return shots
    return [shots[i] for i in np.linspace(0, len(shots) - 1, most).round().astype(int)]


def _in_turns(
    frames: Sequence[Image.Image], shown: Sequence[float], beside: int
) -> tuple[list[Image.Image], list[float]]:
    """Return frames, and the milliseconds of each, so that scene and column never change at the same time.

    A frame of an animated PNG stores one rectangle: if both changed, it would be the whole picture every time. Also,
    numbers that change 15 times a second are not readable.
    beside: width of the column in pixels.
    """
    left = (0, 0, frames[0].width - beside, frames[0].height)
    result, times, since = [frames[0]], [shown[0]], shown[0]
    for frame, seconds in zip(frames[1:], shown[1:], strict=True):
        moved = result[-1].copy()
        moved.paste(frame.crop(left))
        result.append(moved)
        times.append(seconds)
        since += seconds
        if since >= 1000.0 / BESIDE_FPS:  # always true for the last frame, which is shown for longer
            times[-1:] = [seconds / 2, seconds / 2] if frame is not frames[-1] else [20.0, seconds]
            result.append(frame)
            since = seconds / 2
    return result, times


def _palette(samples: Sequence[Image.Image], colours: int) -> Callable[[Image.Image], Image.Image]:
    """Return a function that reduces an RGB image to a palette of `colours` colours."""
    strip = Image.new("RGB", (samples[0].width, samples[0].height * len(samples)))
    for place, sample in enumerate(samples):
        strip.paste(sample, (0, place * sample.height))
    palette = strip.quantize(colours)
    return lambda frame: frame.quantize(palette=palette, dither=Image.Dither.NONE)


def _clear_palette(samples: Sequence[Image.Image], colours: int) -> Callable[[Image.Image], Image.Image]:
    """Return a function that reduces an RGBA image to 2 * `colours` colours (about half are shades of text).

    The most frequent colours are chosen, first those that differ clearly from all others, so that a small red dot stays
    red. Every colour is mapped to the nearest one of the palette, through a table of LEVELS ** 4 entries.
    """
    pixels = np.concatenate([np.asarray(sample).reshape(-1, 4) for sample in samples])  # (M, 4)
    cells, cell, count = np.unique(_cell(pixels), return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(cell, pixels[:, channel], len(cells)) for channel in range(4)], axis=1)
    means = sums / count[:, None]  # (cells, 4)
    common = _most_telling(means, np.argsort(-count, kind="stable"), 2 * colours)
    palette = means[common].round().astype(np.uint8)  # (k, 4)
    grid = np.stack(np.unravel_index(np.arange(LEVELS**4), (LEVELS,) * 4), axis=1) * 17.0  # (LEVELS**4, 4), 0 .. 255
    distance = np.stack([((grid - color) ** 2).sum(1) for color in palette.astype(float)])  # (k, LEVELS**4)
    nearest = distance.argmin(0).astype(np.uint8)
    nearest[cells[common]] = np.arange(len(palette))

    def reduced(frame: Image.Image) -> Image.Image:
        image = Image.fromarray(nearest[_cell(np.asarray(frame))])
        image.putpalette(palette[:, :3].tobytes())
        image.info["transparency"] = palette[:, 3].tobytes()  # without it Pillow misses changes of alpha alone
        return image

    return reduced


def _most_telling(colors: np.ndarray, order: np.ndarray, most: int) -> list[int]:
    """Choose at most `most` of the colours (M, 4) in `order`: first those far from all chosen ones, then the others."""
    taken: list[int] = []
    nearest = np.full(len(colors), np.inf)  # (M,) squared distance to those taken
    for far in (UNLIKE, 0.0):
        for place in order.tolist():
            if len(taken) < most and nearest[place] > far**2:
                taken.append(place)
                nearest = np.minimum(nearest, ((colors - colors[place]) ** 2).sum(axis=1))
    return taken


def _cell(pixels: np.ndarray) -> np.ndarray:
    """Return the index of each colour in the table, (*shape, 4) uint8 -> (*shape)."""
    r, g, b, a = (pixels[..., channel].astype(np.uint16) >> 4 for channel in range(4))
    return r << 12 | g << 8 | b << 4 | a


def check_file(file: str | Path) -> Path:
    """Return the path to write a film to.

    Raises ConfigError for another suffix, if the folder does not exist, or if ffmpeg is missing for an mp4.
    """
    path = Path(file)
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"file: the name has to end with {' or '.join(SUFFIXES)}, got {str(file)!r}")
    if not path.parent.is_dir():
        raise ConfigError(f"file: there is no folder {str(path.parent)!r}")
    if path.is_dir():
        raise ConfigError(f"file: {str(path)!r} is a folder")
    if path.suffix.lower() == ".mp4":
        _ffmpeg()
    return path


def write_png(path: Path, png: bytes) -> None:
    """Write the file atomically: all of it or nothing. Raise ConfigError if that fails."""
    part = _part(path)
    try:
        part.write_bytes(png)
        os.replace(part, path)
    except OSError as error:
        raise ConfigError(f"file: cannot write {str(path)!r}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


class Mp4:
    """An mp4 file (H.264) that is written frame by frame. A context manager: after an error no new file is left."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._part, self._fps = path, _part(path), fps
        self._size = (0, 0)
        self._writer: Any = None

    def add(self, image: Image.Image) -> None:
        """Add the next frame, RGB or RGBA (on white). An odd width or height is cropped by 1: H.264 needs even sizes.

        Raises ConfigError if it cannot be written.
        """
        if image.mode == "RGBA":
            white = Image.new("RGB", image.size, "white")
            white.paste(image, mask=image.getchannel("A"))
            image = white
        try:
            if self._writer is None:
                self._size = (image.width // 2 * 2, image.height // 2 * 2)
                self._writer = _ffmpeg().write_frames(
                    str(self._part), self._size, fps=self._fps, codec="libx264", quality=7, macro_block_size=1
                )
                self._writer.send(None)
            self._writer.send(image.crop((0, 0, *self._size)).tobytes())
        except OSError as error:
            reason = str(error).strip().splitlines()[-1:]
            raise ConfigError(f"file: cannot write {str(self._path)!r}: {' '.join(reason)}") from error

    def __enter__(self) -> Mp4:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
                if error is None:
                    os.replace(self._part, self._path)
        except OSError as failure:
            raise ConfigError(f"file: cannot write {str(self._path)!r}: {failure}") from failure
        finally:
            self._part.unlink(missing_ok=True)


def _part(path: Path) -> Path:
    """Return the temporary path that a file is written to until it is complete; it keeps the suffix, for ffmpeg."""
    return path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")


def _ffmpeg() -> Any:
    """Import the package that contains ffmpeg. Raise ConfigError if it is not installed."""
    try:
        package = importlib.import_module("imageio_ffmpeg")
        package.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        raise ConfigError("file: an mp4 needs ffmpeg: pip install imageio-ffmpeg") from None
    return package
