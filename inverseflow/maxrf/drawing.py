"""What the pictures of MA-XRF share: colours, and what a logarithmic axis can show."""

import numpy as np

COLOURS = {  # Okabe and Ito: told apart with every kind of colour vision
    "element": "#0072B2",
    "scatter": "#E69F00",
    "sum peak": "#CC79A7",
    "escape": "#009E73",
    "unassigned": "#D55E00",
}


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
