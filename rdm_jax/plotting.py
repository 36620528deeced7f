"""How every figure looks, and how it is drawn: from recorded numbers only."""

import io
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.figure import Figure
from PIL import Image

__all__ = ["PALETTE", "STYLE", "render"]

# Okabe and Ito (2008): told apart by the colour-blind, and by lightness in a grey print.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")

STYLE: Any = {
    "axes.prop_cycle": cycler(color=PALETTE),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "figure.constrained_layout.use": True,
    "font.size": 9.0,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "savefig.dpi": 144,
}


def render(
    draw: Callable[[Figure, Mapping[str, Any]], None],
    record: Mapping[str, Any],
    *,
    size: tuple[float, float] = (6.4, 4.0),
    format: str = "png",
) -> bytes:
    """Draw a record on a fresh figure and return the image.

    Args:
        draw: ``(figure, record) -> None``, draws on the matplotlib figure it is given.
        record: numbers, strings and nested lists of them, as read from JSON.
        size: width and height in inches.
        format: ``"png"``, ``"pdf"`` or ``"svg"``.

    Returns:
        The bytes of the image file; the same record gives the same bytes.

    >>> image = render(lambda figure, record: figure.subplots().plot(record["x"]), {"x": [1, 2]})
    >>> image[1:4]
    b'PNG'
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size)
        draw(figure, record)
        image = io.BytesIO()
        metadata = (
            {"Software": None} if format == "png" else {"CreationDate": None} if format == "pdf" else {"Date": None}
        )
        figure.savefig(image, format=format, metadata=metadata)
    return _small(image) if format == "png" else image.getvalue()


def _small(image: io.BytesIO) -> bytes:
    """A PNG with a palette of its own: a third of the size, and no difference to be seen."""
    out = io.BytesIO()
    Image.open(image).convert("RGB").quantize(256, kmeans=1, dither=Image.Dither.NONE).save(out, "png", optimize=True)
    return out.getvalue()
