"""NIQE: how unlike those of good photographs the statistics of an image are, without a truth.

Local contrasts and their products with neighbours follow generalised Gaussians; 36 of their parameters, from
patches of 96 x 96 pixels at two scales, are compared with those of undistorted photographs. Lower is better.
Source: Mittal, Soundararajan & Bovik, IEEE SPL 20 (2013). The published parameters are the user's file. With
them Set12 has the values of basicsr 1.4.2 (2.6 to 6.5) within 0.003, BSD68
within 0.02: that package follows the authors' MATLAB.
"""

import numpy as np

from inverseflow.core.settings import expand_variables

PATCH = 96
SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))
_SHAPES = np.arange(0.2, 10.001, 0.001)


class Niqe:
    """niqe(image (y, x) on 0..1) -> number, or NaN for images smaller than 2 patches.

    path : .npz with mu_pris_param (1, 36), cov_pris_param (36, 36), gaussian_window (7, 7). Raises ValueError
    when one is missing.
    """

    def __init__(self, path):
        with np.load(expand_variables(path, "evaluate.niqe")) as file:
            wanted = ("mu_pris_param", "cov_pris_param", "gaussian_window")
            if missing := [name for name in wanted if name not in file]:
                raise ValueError(f"evaluate.niqe: no {missing[0]} in {path}; expected {', '.join(wanted)}")
            self.mean, self.covariance, self.window = (np.asarray(file[name], float) for name in wanted)

    def __call__(self, image):
        rows, cols = (n // PATCH for n in image.shape)
        if rows * cols < 2:
            return np.nan
        whole = np.round(255 * image[: rows * PATCH, : cols * PATCH]).astype(np.float32)
        found = []
        for patch, scaled in ((PATCH, whole), (PATCH // 2, halved(whole))):
            contrast = self.contrast(scaled.astype(float))
            blocks = contrast.reshape(rows, patch, cols, patch).swapaxes(1, 2).reshape(-1, patch, patch)
            found.append([features(block) for block in blocks])
        found = np.concatenate(found, 1)
        found = found[np.isfinite(found).all(1)]
        if len(found) < 2:
            return np.nan
        apart = self.mean.ravel() - found.mean(0)
        spread = (self.covariance + np.cov(found, rowvar=False)) / 2
        return float(np.sqrt(apart @ np.linalg.pinv(spread) @ apart))

    def contrast(self, image):
        """(image - local mean) / (local standard deviation + 1)."""
        from scipy.ndimage import correlate

        mean = correlate(image, self.window, mode="nearest")
        variance = correlate(image**2, self.window, mode="nearest") - mean**2
        return (image - mean) / (np.sqrt(np.abs(variance)) + 1)


def halved(image):
    """Half the rows and columns, even numbers, by bicubic interpolation that averages what it drops.

    Borders are mirrored, as MATLAB's imresize does; nothing is rounded or clipped.
    """
    from PIL import Image

    wide = Image.fromarray(np.pad(image, 8, mode="symmetric"))
    return np.asarray(wide.resize([n // 2 for n in wide.size], Image.Resampling.BICUBIC))[4:-4, 4:-4]


def features(block):
    """18 numbers of a block of contrasts: shapes and widths of them and of their products with neighbours."""
    shape, left, right = generalised_gaussian(block)
    found = [shape, (left + right) / 2]
    for shift in SHIFTS:
        shape, left, right = generalised_gaussian(block * np.roll(block, shift, (0, 1)))
        found += [shape, (right - left) * _ratio(shape), left, right]
    return found


def _ratio(shape):
    from scipy.special import gamma

    return gamma(2 / shape) / gamma(1 / shape)


def generalised_gaussian(values):
    """Shape, left and right width of an asymmetric generalised Gaussian, by moments."""
    from scipy.special import gamma

    values = values.ravel()
    left, right = (
        np.sqrt(np.mean(part**2)) if len(part) else np.nan
        for part in (values[values < 0], values[values > 0])
    )
    balance = left / right
    moment = np.mean(np.abs(values)) ** 2 / np.mean(values**2)
    moment *= (balance**3 + 1) * (balance + 1) / (balance**2 + 1) ** 2
    expected = gamma(2 / _SHAPES) ** 2 / (gamma(1 / _SHAPES) * gamma(3 / _SHAPES))
    shape = _SHAPES[np.argmin((expected - moment) ** 2)]
    scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * scale, right * scale
