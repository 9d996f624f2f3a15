"""Iterative latent variable refinement: low frequencies of the measurement in every step."""

import torch

from .sampling import Walk, check, to_image, to_state
from .svd import svd_of

CUT = 0.05  # of the largest singular value: what is weaker counts as not measured


@torch.no_grad()
def ilvr(prior, degradation, y, settings, seeds, progress=None):
    """One image of each measurement; see `sampling` for arguments, IlvrSettings for numbers.

        x'_{t-1} ~ p(x_{t-1} | x_t),    y_{t-1} ~ q(y_{t-1} | y),
        x_{t-1} = x'_{t-1} + phi(y_{t-1}) - phi(x'_{t-1})

    phi = A^+ A, for means of blocks: down and up again by nearest neighbours. It takes the measurement as
    exact; with noise, leave the last steps free. degradation : linear, see `svd`.
    Source: Choi et al., ICCV 2021, Algorithm 1.
    """
    check(prior, degradation, y, seeds)
    svd, walk = svd_of(degradation), Walk(prior, settings.n_eval, seeds)
    reference = to_state(svd.pseudo_inverse(y, CUT))
    x, last = walk.first(y), settings.until * settings.n_eval
    for k in walk.down(progress, "ILVR"):
        x = walk.ancestral(x, walk.clean(x, k), k)
        y_t = walk.noised(reference, k - 1, walk.noise(x))
        if k >= last:
            x = x + svd.pseudo_inverse(degradation(y_t - x), CUT)
    return to_image(x)
