"""Where the texts of a drawn picture are."""

from itertools import combinations


def texts(figure):
    """Every visible text of a drawn figure with the box it fills, in pixels."""
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
    """Every text is inside the figure, and none is on another."""
    found = texts(figure)
    for text, box in found:
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height
        assert inside, f"{text!r} at {box} leaves the picture"
    for (text, box), (other, its) in combinations(found, 2):
        assert not box.overlaps(its), f"{text!r} is on {other!r}"
