"""What all pictures share: colours, figures measured in inches, files that are the same every time."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from inverseflow.core.stores import replacing

COLOURS = {  # Okabe and Ito: told apart with every kind of colour vision
    "element": "#0072B2",
    "scatter": "#E69F00",
    "sum peak": "#CC79A7",
    "escape": "#009E73",
    "unassigned": "#D55E00",
}


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


def positive(values):
    """The values, NaN where a logarithmic axis cannot show them."""
    values = np.asarray(values, float)
    return np.where(values > 0, values, np.nan)


def lowest_level(values, n_spectra):
    """Lowest level worth drawing: a tenth of a low percentile, at least one count in all spectra."""
    positive = np.asarray(values)[np.asarray(values) > 0]
    if not positive.size:
        return 1.0 / n_spectra
    return max(float(np.percentile(positive, 2)) / 3, 0.5 / n_spectra)


def save(fig, path):
    """Write without date or version, so that the same picture is the same file."""
    form = Path(path).suffix.lstrip(".") or "png"
    metadata = {"Software": None} if form == "png" else {"CreationDate": None}
    with replacing(path) as temporary:
        fig.savefig(temporary, format=form, metadata=metadata)
