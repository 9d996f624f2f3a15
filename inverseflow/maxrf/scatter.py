"""Tube lines scattered by the sample: recognise the anode, fit angle and width of the Compton peaks."""

import numpy as np
from scipy.optimize import least_squares, nnls

from .background import spline_basis
from .calibration import COMPTON, LOWEST_KEV, compton_shape
from .candidates import RADIOACTIVE, RARE, gauss_template, split
from .lines import line_groups

K_ANODES = (
    "Rh",
    "Ag",
    "Mo",
    "Pd",
)  # recognised by themselves; others only when the file or the user names them
_K_NAMES = tuple(f"{a}-K" for a in K_ANODES)
PRIOR = {  # start, sigma, lowest, highest of the numbers of a Compton peak
    "angle_deg": (120.0, 40.0, 55.0, 175.0),
    "width": (0.012, 0.006, 0.003, 0.05),
    "tail_fraction": (0.2, 0.2, 0.0, 0.7),
    "tail_kev": (0.5, 0.4, 0.1, 2.5),
}


def find_scatter(y, response, tube_kv, anodes=K_ANODES):
    """(anode, scatter dict) of the anode whose Compton peaks improve the fit most, or (None, None).

    Around the coherent lines the spectrum is written as smooth continuum, K and L spectra of all elements
    (the anode's own among them, which is its coherent scatter) and, per anode, Compton peaks. Elements alone
    explain any sharp peak, so what Compton peaks add is the mark of the tube. A number instead of an element
    symbol is the energy of a monochromatic beam. See `Calibration.scatter`.
    """
    best = (0.0, None, None)
    for anode in anodes:
        result = _fit_scatter(y, response, tube_kv, anode, refine=False)
        if result and result["gain"] > best[0]:
            best = (result["gain"], anode, result)
    if best[1] is None:
        return None, None
    result = _fit_scatter(y, response, tube_kv, best[1], refine=True)
    strong = result["significance"]
    named = len(anodes) == 1
    if min(strong.values()) < (3 if named else 8) or (
        not named and (result["gain"] < 50 or result["explained"] < 0.2)
    ):
        return None, None
    return (None if isinstance(best[1], float) else best[1]), result


def _source(response, tube_kv, anode):
    """Name, bunches of lines and energy range (keV) of the fit of a tube or beam; None without a line."""
    if isinstance(anode, float):
        return "beam", [("beam", [(anode, 1.0)])], 0.80 * anode, 1.06 * anode
    end = float(response.energy(response.n_channels - 1))
    groups = line_groups(tube_kv, LOWEST_KEV, end - 0.3, [anode])
    groups = [g for g in groups if g.shell in "KL" and g.main_kev > 4]
    if not groups:
        return None
    tube = max(groups, key=lambda g: g.main_kev)
    if tube.name in _K_NAMES:  # one region for all of them, so that they compare
        return tube.name, split(tube, response), 14.5, 26.5
    return tube.name, split(tube, response), 0.84 * tube.main_kev, 1.25 * tube.main_kev


def _fit_scatter(y, response, tube_kv, anode, refine):
    """Fit of one anode or beam, as a scatter dict with `gain` (robust chi-square that its Compton peaks take
    away) and `explained` (share of what was left); None where the spectrum has no room or counts for it.
    """
    beam = anode if isinstance(anode, float) else None
    found = _source(response, tube_kv, anode)
    if not found:
        return None
    source, families, low, high = found
    low, high = (int(np.clip(response.channel(e), 0, len(y) - 1)) for e in (low, high))
    rebin = max(1, int(response.sigma_channel(high) / 2.0))
    n_bins = (high - low) // rebin
    if n_bins < 30:
        return None
    region = slice(low, low + n_bins * rebin)
    cut = lambda s: s[region].reshape(n_bins, rebin).sum(1)  # noqa: E731
    data = cut(y)
    if data.sum() < 200:
        return None
    weight = 1 / np.sqrt(data + 1 + (0.02 * data) ** 2)
    others = [
        g for g in line_groups(tube_kv, response.energy(low), response.energy(high))
        if g.element != anode and g.element not in RADIOACTIVE and g.element not in RARE
    ]  # fmt: skip
    if beam:  # any line near it would be a second guess at the beam itself
        others = [g for g in others if g.main_kev < 0.93 * beam]
    fixed = np.stack(
        [cut(response.lines(*zip(*lines))) for _, lines in families]
        + [cut(gauss_template(g, response)) for g in others]
        + list(spline_basis(n_bins, 6).T),
        1,
    )  # fmt: skip
    fixed *= weight[:, None]
    target, k, bunches = data * weight, len(families), [lines for _, lines in families]

    def solve(p):
        sources = [[(e + p[4], w) for e, w in lines] for _, lines in families] if beam else bunches
        moved = [cut(compton_shape(response, lines, *p[:4])) for lines in sources]
        a = np.hstack([fixed, np.stack(moved, 1) * weight[:, None]])
        if beam:
            a[:, 0] = cut(response.line(beam + p[4])) * weight
        scale = np.sqrt((a**2).sum(0)) + 1e-300
        area, _ = nnls(a / scale, target, maxiter=100 * a.shape[1])
        return a, area / scale

    centre, spread, lower, upper = np.array(
        [PRIOR[n] for n in COMPTON] + [(0, 0.2, -0.5, 0.5)] * bool(beam)
    ).T

    def residual(p):
        a, area = solve(p)
        return np.r_[target - a @ area, (p - centre) / spread]

    def robust(r):
        return float(18 * (np.sqrt(1 + r**2 / 9) - 1).sum())

    starts = [np.r_[angle, centre[1:]] for angle in np.arange(75, 166, 15.0)]
    costs = [robust(residual(p)[: len(target)]) for p in starts]
    p = starts[int(np.argmin(costs))]
    sigma = spread
    if refine:
        robustly = {"loss": "soft_l1", "f_scale": 3.0, "max_nfev": 30}
        fit = least_squares(residual, p, bounds=(lower, upper), x_scale=spread / 4, **robustly)
        p = fit.x
        inflate = max(1.0, robust(fit.fun) / max(len(target) - fixed.shape[1], 1))
        sigma = np.sqrt(np.diag(np.linalg.pinv(fit.jac.T @ fit.jac)) * inflate)
    a, area = solve(p)
    scale = np.sqrt((fixed**2).sum(0)) + 1e-300
    bare, _ = nnls(fixed / scale, target, maxiter=100 * fixed.shape[1])
    without, left = robust(target - (fixed / scale) @ bare), robust(target - a @ area)
    used = area > 0
    error = np.full(len(area), np.inf)
    error[used] = np.sqrt(np.maximum(np.diag(np.linalg.pinv(a[:, used].T @ a[:, used])), 1e-30))
    inflate = np.sqrt(max(1.0, left / len(target)))
    shift = float(p[4]) if beam else 0.0
    parts = {"Rayleigh": slice(0, k), "Compton": slice(len(area) - k, None)}
    result = {name: float(v) for name, v in zip(COMPTON, p)}
    result["sigma"] = {name: float(v) for name, v in zip(COMPTON, sigma)}
    if beam:
        result["beam_kev"] = beam + shift
    result["shapes"], result["counts"], result["significance"] = {}, {}, {}
    for part, where in parts.items():
        name = f"{source}-{part}"
        lines = [
            [float(e + shift), float(w * v)]
            for (_, lines), v in zip(families, area[where])
            for e, w in lines
            if v > 0
        ]
        if lines:
            result["shapes"][name] = lines
        result["counts"][name] = float(area[where].sum())
        result["significance"][part] = float((area[where] / (error[where] * inflate)).max())
    result["gain"] = (without - left) / inflate**2
    result["explained"] = 1 - left / max(without, 1e-9)
    return result
