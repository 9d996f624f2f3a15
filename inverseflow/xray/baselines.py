"""What `csc` and `unfolded` are measured against: five estimates of the visible layer of a mixed radiograph.

Every function takes the radiograph x (y, x) and, when it looks at colours, rgb (3, y, x), float32, and
returns x1 (y, x) float32; the concealed layer is x - x1. The constant of a layer cannot be known.

    half          x / 2
    luminance     the grey image, scaled
    levin_weiss   sparse gradients, told apart by the edges of the colours
    guided        regression of x on the colours in windows: what x has in common with them
    oracle        the same regression, fitted to the true x1: an upper reference, on synthetic paintings only

Their parameters were tuned on the tuning paintings. Tiles of a large image agree when the scale of
`luminance` is fitted once on the whole image.
"""

import numpy as np

from .grey import grey
from .tile_fit import weighted_median

ORACLE_RADIUS_PX = 4


def half(x):
    """x / 2."""
    return np.float32(0.5) * x


def luminance(x, rgb, scale=None):
    """The grey image times `scale`, by default `luminance_scale(x, rgb)`."""
    scale = luminance_scale(x, rgb) if scale is None else scale
    return np.float32(scale) * grey(rgb)


def luminance_scale(x, rgb, sigma=6.0):
    """The factor a that minimises sum |grad(x - a grey)|, without knowing any layer.

    Edges of the concealed layer are few, so the sum of absolute values passes over them: the exact
    minimiser is the median of the ratios of gradients, weighted by the gradients of the grey image. A robust
    fit asks for no truth. sigma: smoothing of both before, in pixels.
    """
    from scipy.ndimage import gaussian_filter

    change, of_grey = (
        np.concatenate([d.ravel() for d in _gradient(gaussian_filter(image.astype(float), sigma))])
        for image in (x, grey(rgb))
    )
    used = np.abs(of_grey) > 1e-9
    if not used.any():
        return 0.0
    return float(weighted_median(change[used] / of_grey[used], np.abs(of_grey[used])))


def levin_weiss(x, rgb, settings, mean=None, n_step=30):
    """min over x1 of sum w1 |grad x1| + w2 |grad(x - x1)|: where colours have edges, those of x go to x1.

        v = g / (g + contrast),   g = |grad rgb| after smoothing,   w1 = floor + 1 - v,   w2 = floor + v

    By iteratively reweighted least squares, each solved by conjugate gradients behind the exact inverse of
    the unweighted problem (a cosine transform). Start x/2.

    Parameters
    ----------
    settings : LevinWeissSettings. mean : of the radiograph, of the whole one when x is a tile; x1 gets half.
    n_step : steps of conjugate gradients in each reweighting.

    Source: Levin & Weiss, "User assisted separation of reflections from a single image using a sparsity
    prior", IEEE TPAMI 29 (2007); the user's marks are replaced by the edges of the colours.
    """
    from scipy.ndimage import gaussian_filter

    smooth = np.stack([gaussian_filter(c.astype(float), settings.sigma_px, mode="reflect") for c in rgb])
    edges = [np.sqrt((d**2).sum(0)) for d in _gradient(smooth)]
    visible = [edge / (edge + settings.contrast) for edge in edges]
    w1, w2 = [settings.floor + 1 - v for v in visible], [settings.floor + v for v in visible]
    target = _gradient(x.astype(float))
    small = 1e-2 * np.mean([np.abs(d).mean() for d in target]) + 1e-12
    x1 = 0.5 * (x - x.mean(dtype=float))
    for _ in range(settings.n_iter):
        gradient = _gradient(x1)
        front = [w / np.maximum(np.abs(d), small) for w, d in zip(w1, gradient, strict=True)]
        behind = [w / np.maximum(np.abs(t - d), small) for w, t, d in zip(w2, target, gradient, strict=True)]
        pull = _divergence([b * t for b, t in zip(behind, target, strict=True)])
        x1 = _solve([a + b for a, b in zip(front, behind, strict=True)], pull, x1, n_step)
    mean = x.mean(dtype=float) if mean is None else mean
    return (x1 + 0.5 * mean).astype(np.float32)


def guided(x, rgb, radius_px, eps):
    """Regress x on the colours in every window of (2 radius + 1)^2 pixels; average over windows.

        x1 = a . rgb + b,   a = (cov(rgb) + eps)^-1 cov(rgb, x),   b = mean x - a . mean rgb

    eps is a variance of colours (0..1): windows with less colour than that give their mean only.
    Source: He, Sun & Tang, "Guided image filtering", IEEE TPAMI 35 (2013).
    """

    def mean(image):
        return _box_mean(image, radius_px)

    rgb, x = rgb.astype(float), x.astype(float)
    mean_rgb, mean_x = mean(rgb), mean(x)
    covariance = np.stack([mean(c * rgb) - m * mean_rgb for c, m in zip(rgb, mean_rgb, strict=True)])
    covariance += eps * np.eye(len(rgb))[:, :, None, None]
    with_x = mean(rgb * x) - mean_rgb * mean_x
    a = np.linalg.solve(covariance.transpose(2, 3, 0, 1), with_x.transpose(1, 2, 0)[..., None])[..., 0]
    a = a.transpose(2, 0, 1)
    b = mean_x - (a * mean_rgb).sum(0)
    return ((mean(a) * rgb).sum(0) + mean(b)).astype(np.float32)


def oracle(x1, rgb, radius_px=ORACLE_RADIUS_PX, eps=1e-4):
    """The guided filter fitted to the TRUE x1: how much of x1 colours can tell locally."""
    return guided(x1, rgb, radius_px, eps)


def _box_mean(image, radius):
    """Mean over (2 radius + 1)^2 pixels, reflected at the borders, of (..., y, x)."""
    from scipy.ndimage import uniform_filter

    return uniform_filter(image, (0,) * (image.ndim - 2) + (2 * radius + 1,) * 2, mode="reflect")


def _gradient(image):
    """Differences along y and x, zero at the far border."""
    down, right = np.zeros_like(image), np.zeros_like(image)
    down[..., :-1, :] = image[..., 1:, :] - image[..., :-1, :]
    right[..., :-1] = image[..., 1:] - image[..., :-1]
    return down, right


def _divergence(p):
    """Adjoint of `_gradient`."""
    out = np.zeros_like(p[0])
    out[1:] += p[0][:-1]
    out[:-1] -= p[0][:-1]
    out[:, 1:] += p[1][:, :-1]
    out[:, :-1] -= p[1][:, :-1]
    return out


def _solve(weights, b, u, n_step):
    """sum_d D' w D u = b without constant, by preconditioned conjugate gradients from u."""
    from scipy.fft import dctn, idctn

    laplace = sum(
        np.expand_dims(2 - 2 * np.cos(np.pi * np.arange(n) / n), 1 - axis) for axis, n in enumerate(b.shape)
    )
    laplace[0, 0] = np.inf
    middle = np.sqrt(np.median(weights[0]) * np.median(weights[1]))

    def precondition(r):
        return idctn(dctn(r, norm="ortho") / (middle * laplace), norm="ortho")

    def multiply(u):
        return _divergence([w * d for w, d in zip(weights, _gradient(u), strict=True)])

    r = b - multiply(u)
    start = p = z = precondition(r)
    energy = begin = (r * start).sum()
    for _ in range(n_step):
        if energy <= 1e-8 * begin:
            break
        q = multiply(p)
        step = energy / (p * q).sum()
        u, r = u + step * p, r - step * q
        z = precondition(r)
        energy, before = (r * z).sum(), energy
        p = z + energy / before * p
    return u - u.mean()
