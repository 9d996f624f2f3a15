"""Solvers of y = A x, batched: one function per algorithm, a page or less, each reads like its paper.

`A` is a linear operator with `A(x)`, `A.A_adjoint(y)`, `A.in_shape` and `A.norm_squared()`; x is
(batch, *in_shape), y (batch, *out_shape). The members of a batch never meet: every number that is formed
belongs to one of them. Nothing is rescaled. `watch(k, x)` is called after iteration k.
"""

import torch


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


def ista(A, y, n_iter, threshold=0.0, mask=None, step=None, nonnegative=True, x0=None, watch=None):
    """min 0.5 sum m (A x - y)^2 + threshold sum |x|, over x >= 0 by default, by proximal gradient steps:

        x <- prox(x - step A'(m (A x - y))),    prox(u) = max(u - step threshold, 0)

    threshold: number, or tensor that broadcasts to x, in units of A'y; from max A'y on, x >= 0 becomes 0.
    step: 1/||A||^2 unless given; with it, and mask <= 1, the cost never rises. y may be negative.
    Source: Daubechies, Defrise & De Mol, CPAM 57 (2004).
    """
    trust, prox = _trust(mask, y), _shrink_positive if nonnegative else _shrink
    step = 1 / A.norm_squared() if step is None else step
    x = y.new_zeros(len(y), *A.in_shape) if x0 is None else x0
    for k in range(n_iter):
        x = prox(x - step * A.A_adjoint(trust * (A(x) - y)), step * threshold)
        if watch:
            watch(k, x)
    return x


def fista(A, y, n_iter, threshold=0.0, mask=None, step=None, nonnegative=True, x0=None, watch=None):
    """The problem and the arguments of `ista`; the gradient is taken ahead of x, which makes it quicker.

        x_new <- prox(v - step A'(m (A v - y))),    v <- x_new + (t - 1)/t_new (x_new - x)

    The cost may rise for an iteration. Source: Beck & Teboulle, SIAM J. Imaging Sci. 2 (2009).
    """
    trust, prox = _trust(mask, y), _shrink_positive if nonnegative else _shrink
    step = 1 / A.norm_squared() if step is None else step
    x = v = y.new_zeros(len(y), *A.in_shape) if x0 is None else x0
    t = 1.0
    for k in range(n_iter):
        new = prox(v - step * A.A_adjoint(trust * (A(v) - y)), step * threshold)
        t_new = 0.5 * (1 + (1 + 4 * t * t) ** 0.5)
        v = new + (t - 1) / t_new * (new - x)
        x, t = new, t_new
        if watch:
            watch(k, x)
    return x


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
