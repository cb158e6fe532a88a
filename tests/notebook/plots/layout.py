"""Helpers that check the positions of the texts in a drawn figure."""

from itertools import combinations


def texts(figure):
    """Return every visible text of a drawn figure with its bounding box, in pixels."""
    figure.canvas.draw()
    found = []
    for ax in figure.axes:
        if not ax.get_visible():
            continue
        ticks = [
            tick.label1
            for axis in (ax.xaxis, ax.yaxis)
            for tick in axis.get_major_ticks()
            if min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
        ]
        legend = ax.get_legend()
        found += [*ax.texts, ax.xaxis.label, ax.yaxis.label, *ticks, *(legend.get_texts() if legend else [])]
    return [(text.get_text(), text.get_window_extent()) for text in found if text.get_text() and text.get_visible()]


def check(figure):
    """Assert that every text is inside the figure and that no two texts overlap."""
    found = texts(figure)
    for text, box in found:
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height
        assert inside, f"{text!r} at {box} is partly outside the picture"
    for (text, box), (other, its) in combinations(found, 2):
        assert not box.overlaps(its), f"{text!r} overlaps {other!r}"
