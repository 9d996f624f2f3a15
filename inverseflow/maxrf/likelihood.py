"""Which elements a spectrum with many counts needs: an over-dispersed likelihood and forward-backward
selection.

With 1e7 counts Poisson noise alone rejects every template, because no template is right to 1e-4. Two terms
make room for that: a relative error eps of every channel, and nuisance modes, shape errors of one sigma each
(axis, tail, line ratios) whose amplitudes are integrated out with a unit Gaussian prior:

    y ~ N(X a, V + E E^T),  V = diag(y + (eps y)^2),  E[:, p] = D_p a.

Everything then happens in the Gram matrix X^T (V + E E^T)^-1 X, whatever the number of channels.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d, uniform_filter1d
from scipy.optimize import nnls


@dataclass(frozen=True)
class Columns:
    """Non-negative building blocks of a spectrum.

    X (channel, column); owner (column,): the element a column speaks for, "" for what is always allowed
    (scatter, continuum, sum peaks); mix (group, column): areas of the template groups in one unit of a
    column; errors(area (group,)) -> (channel, mode): what one-sigma shape errors would add to the spectrum,
    or None.
    """

    X: np.ndarray
    owner: np.ndarray
    mix: np.ndarray
    errors: object = None


@dataclass(frozen=True)
class Fit:
    """Result of `explain`: chosen owners in order of entry, areas and sigmas of the groups, model, variances.

    statistic {owner: chi-square lost without a chosen owner, or gained by one that was not chosen};
    rivals {chosen owner: {owner that could replace it: cost}}, for costs below half the threshold. Forced
    owners are left out of both.
    """

    chosen: tuple
    amount: np.ndarray
    area: np.ndarray
    sigma: np.ndarray
    mu: np.ndarray
    variance: np.ndarray
    statistic: dict
    rivals: dict
    eps: float


def smooth_counts(y, sigma_channel):
    """Counts smoothed by about one peak width where there are few, unchanged where there are many."""
    width = float(np.median(sigma_channel))
    soft = gaussian_filter1d(y, width, mode="nearest")
    weight = y / (y + 100.0)
    return np.maximum(weight * y + (1 - weight) * soft, 0.0) + 1.0


NEAR_EPS = 1e-3  # misfit far down the flanks of a peak, per count in the neighbourhood


def error_variance(y, sigma_channel, eps):
    """Variance of each channel: Poisson, and two errors that are alike over the width of a peak.

    A relative error eps of the channel itself, and NEAR_EPS of the mean over 6 sigma on both sides: natural
    line width, radiative Auger and incomplete charge surround a strong line with what no template has.
    """
    spread = np.sqrt(2 * np.sqrt(np.pi) * np.maximum(sigma_channel, 0.3))
    soft = smooth_counts(y, sigma_channel)
    near = uniform_filter1d(soft, 2 * int(6 * np.median(sigma_channel) + 1) + 1, mode="nearest")
    return soft + (eps * spread * soft) ** 2 + (NEAR_EPS * spread * near) ** 2


def whiten(columns, variance, amount):
    """X^T C^-1 X and a function y -> X^T C^-1 y for C = diag(variance) + E E^T at the present amounts."""
    root = 1 / np.sqrt(variance)
    A = columns.X * root[:, None]
    E = columns.errors(columns.mix @ amount) * root[:, None] if columns.errors else np.zeros((len(root), 0))
    inner = np.linalg.inv(np.eye(E.shape[1]) + E.T @ E)
    P = E.T @ A
    gram = A.T @ A - P.T @ inner @ P

    def project(y):
        w = y * root
        return A.T @ w - P.T @ (inner @ (E.T @ w))

    def chi2(r):
        w = r * root
        e = E.T @ w
        return float(w @ w - e @ inner @ e)

    return gram, project, chi2


def nonnegative(gram, z, keep):
    """argmin 0.5 a'Ga - z'a over a >= 0, zero outside keep (bool), and its gain z'a - 0.5 a'Ga, doubled."""
    index = np.flatnonzero(keep)
    scale = 1 / np.sqrt(np.maximum(np.diag(gram)[index], 1e-300))
    g = gram[np.ix_(index, index)] * np.outer(scale, scale)
    low = np.linalg.cholesky(g + 1e-9 * np.eye(len(index)))
    right = np.linalg.solve(low, z[index] * scale)
    a, _ = nnls(low.T, right, maxiter=30 * len(index) + 100)
    full = np.zeros(len(z))
    full[index] = a * scale
    return full, float(2 * z @ full - full @ gram @ full)


def gains(gram, z, amount, owner, candidates):
    """{owner: chi-square gained when its columns join the present non-zero ones}."""
    passive = np.flatnonzero(amount > 0)
    g = gram[np.ix_(passive, passive)]
    scale = 1 / np.sqrt(np.diag(g))
    factor = np.linalg.inv(g * np.outer(scale, scale) + 1e-9 * np.eye(len(passive))) * np.outer(scale, scale)
    cross = gram[:, passive] @ factor
    rest = gram - cross @ gram[passive]
    score = z - cross @ z[passive]
    found = {}
    for name in candidates:
        c = owner == name
        block = rest[np.ix_(c, c)]
        if (np.diag(block) <= 1e-6 * np.diag(gram)[c]).all():
            found[name] = 0.0
            continue
        if (score[c] <= 0).all():
            found[name] = 0.0
            continue
        found[name] = max(nonnegative(block, score[c], np.ones(c.sum(), bool))[1], 0.0)
    return found


def explain(y, columns, candidates, sigma_channel, threshold, eps, forced=(), max_owners=40, exact_top=3):
    """Choose the owners that y (counts, not a mean) needs; see `Fit`.

    threshold: chi-square an owner must bring; eps: relative channel error per peak width. Forward with exact
    refits of the best few, backward after every step, then exchange with owners left out.
    """
    variance = error_variance(y, sigma_channel, eps)
    always = columns.owner == ""
    chosen = [c for c in candidates if c in forced]
    candidates = list(candidates)
    amount = np.zeros(columns.X.shape[1])
    gram, project, _ = whiten(columns, variance, amount)
    z = project(y)

    def allowed(names):
        return always | np.isin(columns.owner, names)

    def solve(names):
        return nonnegative(gram, z, allowed(names))

    def weak(names):
        """Those whose removal may cost less than the threshold, by the cost that ignores the signs."""
        cost = dict.fromkeys(names, 0.0)
        active = np.flatnonzero(amount > 0)
        inverse = np.linalg.pinv(gram[np.ix_(active, active)], hermitian=True)
        for c in names:
            own = columns.owner[active] == c
            if own.any():
                a = amount[active][own]
                cost[c] = a @ np.linalg.solve(inverse[np.ix_(own, own)], a)
        return [c for c in names if cost[c] < 2 * threshold]

    for _ in range(2 * max_owners):
        amount, value = solve(chosen)
        gram, project, _ = whiten(columns, variance, amount)
        z = project(y)
        amount, value = solve(chosen)
        changed = False
        left = [c for c in candidates if c not in chosen]
        gain = gains(gram, z, amount, columns.owner, left)
        best = sorted((c for c in left if gain[c] > threshold), key=gain.get, reverse=True)[:exact_top]
        if best and len(chosen) < max(max_owners, len(forced)):
            exact = {c: solve([*chosen, c])[1] - value for c in best}
            top = max(best, key=exact.get)
            if exact[top] > threshold:
                chosen.append(top)
                changed = True
        if not changed:
            break
        amount, value = solve(chosen)
        for c in weak(chosen[:-1]):
            if c not in forced and value - solve([k for k in chosen if k != c])[1] < threshold:
                chosen.remove(c)
                amount, value = solve(chosen)
    amount, value = solve(chosen)
    left = [c for c in candidates if c not in chosen]
    statistic = gains(gram, z, amount, columns.owner, left)
    rivals = {}
    for c in chosen:
        if c in forced:
            continue
        without, value_without = solve([k for k in chosen if k != c])
        statistic[c] = value - value_without
        if statistic[c] < 50 * threshold:
            swap = gains(gram, z, without, columns.owner, left)
            rivals[c] = {
                str(k): statistic[c] - g for k, g in swap.items() if statistic[c] - g < 0.5 * threshold
            }
    mu = columns.X @ amount
    active = np.flatnonzero(amount > 0)
    covariance = np.zeros_like(gram)
    covariance[np.ix_(active, active)] = np.linalg.pinv(gram[np.ix_(active, active)], hermitian=True)
    covariance = columns.mix @ covariance @ columns.mix.T
    return Fit(
        tuple(chosen),
        amount,
        columns.mix @ amount,
        np.sqrt(np.diag(covariance)),
        mu,
        variance,
        statistic,
        rivals,
        eps,
    )
