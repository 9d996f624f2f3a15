"""Solvers of y = A x, batched: one function per algorithm, a page or less, each reads like its paper.

`A` is a linear operator with `A(x)`, `A.A_adjoint(y)`, `A.in_shape` and `A.norm_squared()`; x is
(batch, *in_shape), y (batch, *out_shape). The members of a batch never meet: every number that is formed
belongs to one of them. Nothing is rescaled. `watch(k, x)` is called after iteration k.

With `tol` the sparse solvers stop when `duality_gap` is at most tol times the cost: the cost is then at most
this share above the minimum, and in practice far less. They look every CHECK_EVERY iterations (one more A and
A'); a member of a batch stays as it was when its own gap had closed.
"""

import torch

CHECK_EVERY = 10


def richardson_lucy(
    A,
    y,
    n_iter,
    background=0.0,
    mask=None,
    relaxation=1.0,
    smooth=None,
    x0=None,
    sensitivity=None,
    watch=None,
):
    """Maximum likelihood of y ~ Poisson(A x + background) over x >= 0, by expectation maximisation:

        x <- x [A'(m y / (A x + b)) / A'm]^relaxation

    Parameters
    ----------
    A : operator without negative entries.
    y : tensor (batch, *out_shape), counts. Below zero no Poisson mean can follow: negative values count as 0.
        To keep what they say, add the variance of the read noise to y and to `background`.
    background : number or tensor that broadcasts to y, light that x shall not explain.
    mask : tensor (*out_shape) of trust in [0, 1]; 0 leaves a pixel out (dead, saturated, outside the pupil).
    relaxation : 1 is the plain algorithm, whose likelihood never falls; up to below 2 it is faster.
    smooth : function of x applied after each iteration (anti-aliasing); what it makes negative becomes 0.
    x0 : start, positive; by default an even x with the light of y, so that the result doubles with y.
    sensitivity : A'm (1, *in_shape), when it is known already.

    Voxels that no trusted pixel sees become 0. A pixel that the model leaves dark asks for no change.
    Sources: Richardson, JOSA 62 (1972); Lucy, AJ 79 (1974); Shepp & Vardi, IEEE TMI 1 (1982).
    """
    trust, y = _trust(mask, y), y.clamp_min(0)
    sensitivity = A.A_adjoint(trust) if sensitivity is None else sensitivity
    x, model = x0, None
    if x is None:
        even = y.new_ones(1, *A.in_shape)
        drawn = A(even)
        light = (trust * y).flatten(1).sum(1) / (trust * drawn).sum().clamp_min(torch.finfo(y.dtype).tiny)
        x = light.view(-1, *[1] * len(A.in_shape)) * even
        model = light.view(-1, *[1] * len(A.out_shape)) * drawn
    for k in range(n_iter):
        model = (A(x) if k or model is None else model) + background
        ratio = _divide(trust * y, model, trust)
        x = x * _divide(A.A_adjoint(ratio), sensitivity, 0, 0.5).clamp_min_(0).pow_(relaxation)
        if smooth:
            x = smooth(x).clamp_min_(0)
        if watch:
            watch(k, x)
    return x


def richardson_lucy_normal(A, y, n_iter, background=0.0, mask=None, x0=None, watch=None):
    """Multiplicative least squares over x >= 0, known to light-field microscopists as Richardson-Lucy:

        x <- x A'(m y) / A'(m (A x + b)),    x0 = A'(m y)

    The cost sum m (A x + b - y)^2 never rises. Noise counts the same in bright and dark pixels, unlike in
    `richardson_lucy`. Negative values of y count as 0, because A'y must not be negative; other arguments as
    there.
    Sources: Daube-Witherspoon & Muehllehner, IEEE TMI 5 (1986); Prevedel et al., Nature Methods 11 (2014).
    """
    trust = _trust(mask, y)
    target = A.A_adjoint(trust * y.clamp_min(0)).clamp_min_(0)
    x = target if x0 is None else x0
    for k in range(n_iter):
        x = x * _divide(target, A.A_adjoint(trust * (A(x) + background)), 0)
        if watch:
            watch(k, x)
    return x


def ista(A, y, n_iter, threshold=0.0, mask=None, step=None, nonnegative=True, x0=None, watch=None, tol=None):
    """min 0.5 sum m (A x - y)^2 + threshold sum |x|, over x >= 0 by default, by proximal gradient steps:

        x <- prox(x - step A'(m (A x - y))),    prox(u) = max(u - step threshold, 0)

    threshold: number, or tensor that broadcasts to x, in units of A'y; from max A'y on, x >= 0 becomes 0.
    step: 1/||A||^2 unless given; with it, and mask <= 1, the cost never rises. y may be negative.
    tol: relative gap at which to stop; it needs threshold > 0.
    Source: Daubechies, Defrise & De Mol, CPAM 57 (2004).
    """
    trust, prox = _trust(mask, y), _shrink_positive if nonnegative else _shrink
    step = 1 / A.norm_squared() if step is None else step
    x = y.new_zeros(len(y), *A.in_shape) if x0 is None else x0
    closed = _Closed(A, y, threshold, mask, nonnegative, tol)
    for k in range(n_iter):
        x = prox(x - step * A.A_adjoint(trust * (A(x) - y)), step * threshold)
        if watch:
            watch(k, x)
        if closed.all(k, x):
            break
    return closed.result(x)


def fista(A, y, n_iter, threshold=0.0, mask=None, step=None, nonnegative=True, x0=None, watch=None, tol=None):
    """The problem and the arguments of `ista`; the gradient is taken ahead of x, which makes it quicker.

        x_new <- prox(v - step A'(m (A v - y))),    v <- x_new + (t - 1)/t_new (x_new - x)

    The cost may rise for an iteration. Source: Beck & Teboulle, SIAM J. Imaging Sci. 2 (2009).
    """
    trust, prox = _trust(mask, y), _shrink_positive if nonnegative else _shrink
    step = 1 / A.norm_squared() if step is None else step
    x = v = y.new_zeros(len(y), *A.in_shape) if x0 is None else x0
    closed = _Closed(A, y, threshold, mask, nonnegative, tol)
    t = 1.0
    for k in range(n_iter):
        new = prox(v - step * A.A_adjoint(trust * (A(v) - y)), step * threshold)
        t_new = 0.5 * (1 + (1 + 4 * t * t) ** 0.5)
        v = new + (t - 1) / t_new * (new - x)
        x, t = new, t_new
        if watch:
            watch(k, x)
        if closed.all(k, x):
            break
    return closed.result(x)


def admm(A, y, n_iter, threshold, nonnegative=True, rho=None, relaxation=1.8, watch=None, tol=None):
    """The problem of `ista` without a mask, for a dense matrix `A.matrix` (out, in), by ADMM:

        x <- v + A'(rho + A A')^-1 (y - A v),  v = z - u;    z <- prox(x + u),  u <- u + x - z

    with x relaxed to relaxation x + (1 - relaxation) z. A A' is decomposed once, so that every member has a
    rho of its own: unless given, 3 threshold sqrt(in / out) / RMS of y, balanced every ten iterations.
    threshold: number. For convolutions see `sparse_coding.csc_admm`. Returns z.
    Source: Boyd et al., Foundations and Trends in Machine Learning 3 (2011).
    """
    matrix, flat = A.matrix, y.flatten(1)
    values, Q = torch.linalg.eigh(matrix @ matrix.T)
    adaptive = rho is None
    rms = flat.square().mean(1, keepdim=True).sqrt().clamp_min(torch.finfo(y.dtype).tiny)
    rho = (
        3 * threshold * (matrix.shape[1] / matrix.shape[0]) ** 0.5 / rms
        if adaptive
        else torch.full_like(rms, rho)
    )
    z = u = flat.new_zeros(len(y), matrix.shape[1])
    prox = _shrink_positive if nonnegative else _shrink
    closed = _Closed(A, y, threshold, None, nonnegative, tol)
    for k in range(n_iter):
        v = z - u
        x = v + ((flat - v @ matrix.T) @ Q / (rho + values)) @ Q.T @ matrix
        relaxed = relaxation * x + (1 - relaxation) * z
        new = prox(relaxed + u, threshold / rho)
        u = u + relaxed - new
        if adaptive and k % 10 == 9:
            apart, moved = (each.norm(dim=1, keepdim=True) for each in (x - new, new - z))
            ratio = (apart * u.norm(dim=1, keepdim=True) / (moved * new.norm(dim=1, keepdim=True))).sqrt()
            share = torch.where(torch.isfinite(ratio) & (ratio > 0), ratio.clamp(0.1, 10), 1)
            rho, u = rho * share, u / share
        z = new
        if watch:
            watch(k, z.view(-1, *A.in_shape))
        if closed.all(k, z.view(-1, *A.in_shape)):
            break
    return closed.result(z.view(-1, *A.in_shape))


def duality_gap(A, y, x, threshold, mask=None, nonnegative=True):
    """Cost at x of the problem of `ista`, and how much lower the minimum may be at most: (batch,) each.

    m (y - A x), made smaller until A' of it is at most `threshold` everywhere, is a point of the dual problem
    max over q of 0.5 sum m y^2 - 0.5 sum m (y - q)^2 with A'(m q) <= threshold.
    """
    r, trust = y - A(x), _trust(mask, y)
    seen = A.A_adjoint(trust * r)
    seen = seen if nonnegative else seen.abs()
    tiny = torch.finfo(y.dtype).tiny
    allowed = (threshold / seen.clamp_min(tiny)).flatten(1).amin(1).double()
    rr, ry = ((trust * r * each).double().flatten(1).sum(1) for each in (r, y))
    scale = torch.minimum(allowed, ry.clamp_min(0) / rr.clamp_min(tiny))
    cost = 0.5 * rr + (threshold * x.abs()).double().flatten(1).sum(1)
    return cost, cost - (scale * ry - 0.5 * scale**2 * rr)


class _Closed:
    """Which members of a batch have a relative gap of at most tol, and what they were then."""

    def __init__(self, A, y, threshold, mask, nonnegative, tol):
        if tol is not None and not torch.as_tensor(threshold > 0).all():
            raise ValueError("tol: a relative gap is known for threshold > 0 only; leave tol out")
        self.problem, self.tol = (A, y, threshold, mask, nonnegative), tol
        self.kept, self.done = None, torch.zeros(len(y), dtype=torch.bool, device=y.device)

    def all(self, k, x):
        if self.tol is None or (k + 1) % CHECK_EVERY:
            return False
        A, y, *rest = self.problem
        cost, gap = duality_gap(A, y, x, *rest)
        new = (gap <= self.tol * cost) & ~self.done
        self.kept = torch.where(self._wide(new, x), x, x if self.kept is None else self.kept)
        self.done |= new
        return bool(self.done.all())

    def result(self, x):
        return x if self.kept is None else torch.where(self._wide(self.done, x), self.kept, x)

    def _wide(self, members, x):
        return members.view(-1, *[1] * (x.ndim - 1))


def _shrink_positive(u, threshold):
    return (u - threshold).clamp_min_(0)


def _shrink(u, threshold):
    return u.sign() * (u.abs() - threshold).clamp_min_(0)


def _trust(mask, y):
    """The mask as (1, *out_shape), ones when there is none."""
    return y.new_ones(1, *y.shape[1:]) if mask is None else mask.to(y)[None]


def _divide(a, b, otherwise, digits=1.0):
    """a/b; `otherwise` where b is nothing but rounding: ten times the precision, to the power of `digits`."""
    smallest = (10 * torch.finfo(b.dtype).eps) ** digits
    real = b > smallest * b.amax(tuple(range(1, b.ndim)), keepdim=True)
    return torch.where(real, a / torch.where(real, b, 1), otherwise)
