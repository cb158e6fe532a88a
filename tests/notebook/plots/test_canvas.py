"""PNGs for notebooks: the one with 256 colours looks like the full one, on light and dark pages."""

import io

import numpy as np
from PIL import Image

from ppo_lab.notebook.plots import drive_figure, to_png, to_small_png


def test_a_small_picture_looks_the_same():
    rng = np.random.default_rng(0)
    rows = {name: rng.normal(size=500).cumsum() / 20 for name in ("a", "b", "c")}
    figure = drive_figure(rows["a"], rows, rows)
    full, small = to_png(figure), to_small_png(figure)
    assert len(small) < len(full) / 2
    pictures = [Image.open(io.BytesIO(png)).convert("RGBA") for png in (full, small)]
    for page in ("#ffffff", "#111111"):
        shown = [Image.alpha_composite(Image.new("RGBA", part.size, page), part) for part in pictures]
        one, other = (np.asarray(part, dtype=float)[..., :3] for part in shown)
        assert np.abs(one - other).mean() < 1.0
        assert np.quantile(np.abs(one - other), 0.999) < 40.0
