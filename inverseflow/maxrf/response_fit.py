"""All numbers of a detector's response, fitted together to one spectrum.

Weighted least squares with the Poisson variances of the model; the areas of all lines and of the continuum
are free (variable projection). A relative model error is added to the variances until chi-square per degree
of freedom is 1; weak priors keep what the scan hides.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares, nnls

from .background import snip, spline_basis
from .calibration import LOWEST_KEV, WAY_OUT, CalibrationError, scatter_shapes
from .candidates import RADIOACTIVE, RARE, full_template, split
from .lines import line_groups
from .response import FWHM

NUMBERS = (
    "zero_kev", "gain_kev", "noise_ev", "fano", "tail_fraction", "tail_kev", "step_fraction", "escape_scale"
)  # fmt: skip
PRIOR = {  # of any silicon detector: value, one sigma; lowest and highest possible
    "noise_ev": (85.0, 40.0, 20.0, 400.0),
    "fano": (0.115, 0.01, 0.08, 0.17),
    "tail_fraction": (0.01, 0.02, 0.0, 0.25),
    "tail_kev": (0.15, 0.10, 0.03, 0.5),
    "step_fraction": (0.003, 0.005, 0.0, 0.02),
    "escape_scale": (1.0, 0.3, 0.0, 2.0),
}


class Tube(NamedTuple):
    """What `scatter_shapes` needs, before there is a calibration."""

    anode: str | None
    scatter: dict | None
    tube_kv: float


def fit_response(y, response, tube, first, last, zero_peak, final):
    """Find the groups that the spectrum shows, then fit the numbers of the response and all areas.

    y (n_channels,) counts of the whole scan; first, last: channels of the fit; tube: `Tube`; zero_peak: of
    `find_zero_peak`, or None; final: fit to the end, not just a first round. Returns the dict of `_fit`.
    """
    fixed = scatter_shapes(tube, response)
    cleaned = y.astype(float)
    for name, shape in fixed:
        if tube.scatter and name in tube.scatter["counts"]:
            cleaned = cleaned - tube.scatter["counts"][name] * shape
    continuum = _continuum(np.maximum(cleaned, 0), response, first, last)
    pile = response.pileup(y)
    extra = np.hstack([continuum, *[s[:, None] for _, s in fixed], pile[:, None]])
    groups = [
        g for g in line_groups(tube.tube_kv, LOWEST_KEV, response.energy(last))
        if g.element not in RADIOACTIVE and not any(n.startswith(g.name + "-") for n, _ in fixed)
    ]  # fmt: skip
    found = _identify(y, response, groups, extra, first, last, 0.02 if final else 0.05)
    if not found:
        raise CalibrationError(f"calibrate: no element line found on the axis {response.zero_kev:.3f} + "
                               f"{response.gain_kev:.5f} keV * channel; {WAY_OUT}")  # fmt: skip
    families = [b for g in found for b in split(g, response)]
    return _fit(y, response, families, continuum, tube, first, last, zero_peak, rounds=3 if final else 1)


def _identify(y, response, groups, extra, first, last, systematic, limit=6.0):
    """Groups that the spectrum needs: fit of all, the weakest leave until all exceed `limit` sigma.

    extra (n_channels, k): continuum, scatter and sum peaks, which always stay.
    """
    inside = slice(first, last + 1)
    centre = np.array([g.main_kev for g in groups])
    keep = (centre > response.energy(first) + 0.1) & (centre < response.energy(last) - 0.1)
    groups = [g for g, k in zip(groups, keep) if k]
    shapes = np.stack([full_template(g, response)[inside] for g in groups], 1)
    extra, y = extra[inside], y[inside]
    w = 1 / np.sqrt(y + 1 + (systematic * y) ** 2)
    price = np.array([limit * (2.5 if g.element in RARE else 1.0) for g in groups])
    active = np.arange(len(groups))
    while True:
        a = np.hstack([shapes[:, active], extra]) * w[:, None]
        a /= np.sqrt((a**2).sum(0)) + 1e-300
        area, _ = nnls(a, y * w, maxiter=100 * a.shape[1])
        used = area > 0
        significance = np.zeros(len(area))
        inverse = np.linalg.inv(a[:, used].T @ a[:, used] + 1e-9 * np.eye(int(used.sum())))
        significance[used] = area[used] / np.sqrt(np.maximum(np.diag(inverse), 1e-30))
        ratio = significance[: len(active)] / price[active]
        weak = np.flatnonzero(ratio < 1)
        if not len(weak):
            return [groups[k] for k in active]
        gone = weak[np.argsort(ratio[weak])[: max(1, len(weak) // 2)]]
        active = np.delete(active, gone)


def _continuum(y, response, first, last):
    """(n_channels, n_splines) SNIP continuum times linear B-splines, one per 1.5 keV or so."""
    width = response.sigma_channel(np.arange(len(y)))
    base = snip(y, 3.0 * FWHM * width, smooth=max(1, int(width[(first + last) // 2] / 2)))
    base = np.maximum(base, 0.02 * max(base[first : last + 1].mean(), 1e-3))
    n_splines = int(np.clip((last - first) * response.gain_kev / 1.5, 6, 24))
    return base[:, None] * spline_basis(len(y), n_splines, first, last)


def _fit(y, response, families, continuum, tube, first, last, zero_peak, rounds):
    """Weighted least squares of NUMBERS; the areas are solved inside. Returns a dict, see its end.

    y (n_channels,); families: bunches of `split`; continuum (n_channels, k). Columns of the fit: families,
    scatter of the tube, sum peaks, continuum, in channels first..last.
    """
    inside = slice(first, last + 1)
    data, pile, hills = y[inside], response.pileup(y)[inside], continuum[inside].T
    x = np.array([getattr(response, k) for k in NUMBERS])
    step = np.array([0.01, 1e-3 * response.gain_kev, 5.0, 0.005, 0.01, 0.05, 0.002, 0.1])
    low = np.array([-np.inf, 0.5 * x[1], *(PRIOR[k][2] for k in NUMBERS[2:])])
    high = np.array([np.inf, 2 * x[1], *(PRIOR[k][3] for k in NUMBERS[2:])])
    if x[4] == 0:
        x[4:7] = [PRIOR[k][0] for k in NUMBERS[4:7]]
    x = np.clip(x, low + 1e-6 * step, high - 1e-6 * step)

    def at(x):
        return response.replace(n_channels=last + 1, **dict(zip(NUMBERS, map(float, x))))

    def columns(x):
        r = at(x)
        lines = [r.lines(*zip(*bunch))[inside] for _, bunch in families]
        scattered = [s[inside] for _, s in scatter_shapes(tube, r)]
        return np.stack([*lines, *scattered, pile, *hills], 1)

    def solve(x, w):
        a = columns(x) * w[:, None]
        scale = np.sqrt((a**2).sum(0)) + 1e-300
        area, _ = nnls(a / scale, data * w, maxiter=100 * a.shape[1])
        return a, area / scale

    def prior(x):
        return _prior(x, response, at(x), zero_peak)

    def residual(x, w):
        a, area = solve(x, w)
        return np.r_[data * w - a @ area, prior(x)]

    def weights(model, error, scattered):  # Compton peaks are known less well than lines; outliers as Huber
        w = 1 / np.sqrt(np.maximum(model, 0.3) + (error * model) ** 2 + (0.1 * scattered) ** 2)
        return w / np.sqrt(np.maximum(1, np.abs(data - model) * w / 3))

    pile_at = len(hills) + 1  # from the end
    of_tube = slice(len(families), -pile_at)
    a = columns(x)
    counts = sum(tube.scatter["counts"].values()) if tube.scatter else 0.0
    model, error = np.convolve(y, np.ones(5) / 5, "same")[inside], 0.03
    scattered = a[:, of_tube].sum(1) / max(a[:, of_tube].shape[1], 1) * counts
    for _ in range(rounds):
        w = weights(model, error, scattered)
        h = np.maximum(0.01 * step / np.maximum(np.abs(x), 1e-9), 1e-9)
        stop = {"max_nfev": 8, "xtol": 1e-4, "ftol": 1e-5}
        fit = least_squares(residual, x, args=(w,), bounds=(low, high), x_scale=step, diff_step=h, **stop)
        x = fit.x
        a, area = solve(x, w)
        model, scattered = (a @ area) / w, (a[:, of_tube] @ area[of_tube]) / w
        n_free = max(len(data) - int((area > 0).sum()) - len(x), 1)
        error = _model_error(data - model, model, n_free)
    w = weights(model, error, scattered)
    a, area = solve(x, w)
    model = (a @ area) / w
    left = (((data - model) * w) ** 2).sum() / n_free
    sigma, sigma_area = _errors(x, step, columns, prior, a, area, w, left)
    return {
        "response": at(x).replace(n_channels=response.n_channels),
        "sigma": dict(zip(NUMBERS, map(float, sigma))),
        "families": families,
        "area": area,
        "columns": a / w[:, None],
        "model": model,
        "continuum": area[-len(hills) :] @ hills,
        "pileup": (float(area[-pile_at]), float(sigma_area[-pile_at])),
        "chi2": float(((data - model) ** 2 / np.maximum(model, 0.3)).sum() / n_free),
        "model_error": float(error),
    }


def _prior(x, start, now, zero_peak):
    """Residuals of the priors at the numbers x, with which the response is `now`; `start` has the axis found
    before.
    """
    p = [(x[k] - PRIOR[name][0]) / PRIOR[name][1] for k, name in enumerate(NUMBERS) if name in PRIOR]
    p += [(x[0] - start.zero_kev) / 0.03, (x[1] / start.gain_kev - 1) / 0.005]
    if zero_peak:  # the electronics place it to about 0.1 channel, and its width is the noise to 5 %
        p.append((now.channel(0.0) - zero_peak["channel"]) / np.hypot(0.1, zero_peak["sigma_channel"]))
        noise = np.sqrt(max(zero_peak["width"] ** 2 - 1 / 12, 0.01)) * now.gain_kev * 1e3 * FWHM
        p.append((now.noise_ev - noise) / (0.05 * noise))
    return np.array(p)


def _errors(x, step, columns, prior, a, area, w, left):
    """One sigma of the numbers x and of the areas, from their common covariance.

    columns, prior: functions of x; a: columns times the weights w; left: chi-square per degree of freedom,
    which scales the errors where it is above 1. Areas at their limit 0 get 0.
    """
    derivative, slope = [], []
    for k, h in enumerate(0.02 * step):
        up, down = np.array(x), np.array(x)
        up[k], down[k] = x[k] + h, x[k] - h
        derivative.append((columns(up) - columns(down)) @ area / (2 * h) * w)
        slope.append((prior(up) - prior(down)) / (2 * h))
    used = area > 0
    full = np.hstack([np.stack(derivative, 1), a[:, used]])
    full = np.vstack([full, np.hstack([np.stack(slope, 1), np.zeros((len(slope[0]), int(used.sum())))])])
    scale = np.sqrt((full**2).sum(0)) + 1e-30
    sigma = np.sqrt(np.diag(np.linalg.pinv((full / scale).T @ (full / scale))) * max(1.0, left)) / scale
    sigma_area = np.zeros(len(area))
    sigma_area[used] = sigma[len(x) :]
    return sigma[: len(x)], sigma_area


def _model_error(difference, model, n_free):
    """Relative model error that makes chi-square per degree of freedom 1; 0 if Poisson noise suffices."""
    model = np.maximum(model, 0.3)

    def chi2(error):  # outliers are cut off at 3 sigma
        return np.minimum(difference**2 / (model + (error * model) ** 2), 9).sum() / n_free

    if chi2(0) <= 1:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if chi2(middle) > 1 else (low, middle)
    return high
