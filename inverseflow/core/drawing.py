"""What all pictures share: white figures measured in inches, files that are the same every time."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from inverseflow.core.stores import replacing


def new_figure(width_in, height_in):
    """An empty white figure, its size in inches."""
    fig = Figure((width_in, height_in), dpi=110, facecolor="w")
    FigureCanvasAgg(fig)
    return fig


def add_axes(fig, left, bottom, width, height):
    """Axes at a place in inches from the lower left corner."""
    w, h = fig.get_size_inches()
    return fig.add_axes([left / w, bottom / h, width / w, height / h])


def write_title(fig, title):
    """Text in the upper left corner, if there is any."""
    if title:
        size = fig.get_size_inches()
        fig.text(0.15 / size[0], 1 - 0.1 / size[1], title, fontsize=13, weight="bold", va="top")


def save(fig, path):
    """Write without date or version, so that the same picture is the same file."""
    form = Path(path).suffix.lstrip(".") or "png"
    metadata = {"Software": None} if form == "png" else {"CreationDate": None}
    with replacing(path) as temporary:
        fig.savefig(temporary, format=form, metadata=metadata)
