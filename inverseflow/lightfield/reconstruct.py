"""From rectified frames to volumes, by any of the methods: one short function each.

Frames are in photons (or counts) after dark, volumes so that A(volume) = frame; nothing rescales silently.
Richardson-Lucy in all forms and `em` take negative pixels as 0, which `pedestal` avoids; refocus, ISTA, FISTA
and `lista` use them as they are.
"""

from functools import cached_property

import torch

from inverseflow.core import solvers

from .antialias import AntiAlias


class Task:
    """All that is the same for every frame, each part computed when a method first needs it.

    A : `operator.LightField`; settings : InferSettings; network : for the methods `lista` and `em`, called
    as network(A, frames, prepared, background) -> volume; mask (V, U) : trust in each pixel, 0 to 1, as numpy
    array or tensor; optics : for `rl_aa`.
    """

    def __init__(self, A, settings, network=None, mask=None, optics=None):
        self.A, self.settings, self.network, self.optics = A, settings, network, optics
        self.like = next(A.buffers()).new_zeros((), dtype=getattr(torch, settings.dtype))
        self.mask = None if mask is None else torch.as_tensor(mask).to(self.like)
        if self.mask is not None and self.mask.shape != torch.Size(A.out_shape):
            raise ValueError(
                f"trust mask: expected the shape of a frame, {tuple(A.out_shape)}, got "
                f"{tuple(self.mask.shape)}; both must come from the same calibration"
            )

    @cached_property
    def weight(self):
        """Trust (1, V, U), ones without a mask."""
        return self.like.new_ones(1, *self.A.out_shape) if self.mask is None else self.mask[None]

    @cached_property
    def sensitivity(self):
        """A' m (1, Z, Y, X)."""
        return self.A.A_adjoint(self.weight)

    @cached_property
    def even(self):
        """A' m A 1 (1, Z, Y, X): what an even volume of 1 gives after projection and back."""
        return self.A.A_adjoint(self.weight * self.A(self.like.new_ones(1, *self.A.in_shape)))

    @cached_property
    def step(self):
        """1/||A||^2, where max A'm A 1 bounds the square from above: no entry of A is negative."""
        return 1 / float(self.even.max())

    @cached_property
    def smooth(self):
        if self.optics is None:
            raise ValueError("method rl_aa: expected the optics of the frames, got none")
        return AntiAlias(self.optics, self.A.in_shape[1:], self.like)

    @cached_property
    def prepared(self):
        """What the networks need of the operator and the mask."""
        from .networks import prepare

        norm = "find" if getattr(self.network, "form", None) == "lista" else None
        return prepare(self.A, self.mask, norm)


def refocus(task, y):
    """A'(m y) / A'(m A 1): the mean of the rays through each voxel; an even volume gives itself. Linear."""
    even = task.even
    seen = even > 1e-3 * even.max()
    return torch.where(seen, task.A.A_adjoint(task.weight * y) / torch.where(seen, even, 1), 0)


def rl(task, y, n_iter=None, relaxation=1.0, smooth=None, x0=None):
    """Richardson-Lucy with trust mask, background and pedestal, from an even or the refocused volume."""
    s = task.settings
    if x0 is None and s.start == "refocus":
        x0 = refocus(task, y - s.background).clamp_min(0)
        x0 = x0 + 1e-3 * x0.mean((1, 2, 3), keepdim=True)  # from 0 no voxel could grow
    return solvers.richardson_lucy(
        task.A,
        y + s.pedestal,
        n_iter or s.n_iter,
        background=s.background + s.pedestal,
        mask=task.mask,
        relaxation=relaxation,
        smooth=smooth,
        x0=x0,
        sensitivity=task.sensitivity,
    )


def rl_over(task, y):
    """Over-relaxed Richardson-Lucy: fewer iterations for the same likelihood. The last one is a plain one.

    Near an exponent of 2 the light of broad structures swings about its value from iteration to iteration,
    by up to 80 % in sparse frames; a plain iteration ends that.
    """
    s = task.settings
    x = rl(task, y, s.n_iter_over - 1, s.relaxation) if s.n_iter_over > 1 else None
    return rl(task, y, 1, x0=x)


def rl_aa(task, y):
    """Richardson-Lucy, smoothed by depth after every iteration: no grid at lenslet corners."""
    return rl(task, y, smooth=task.smooth)


def rl_prevedel(task, y):
    """Richardson-Lucy in the form of Prevedel et al. (2014)."""
    s = task.settings
    return solvers.richardson_lucy_normal(
        task.A, y + s.pedestal, s.n_iter, background=s.background + s.pedestal, mask=task.mask
    )


def ista(task, y, solver=solvers.ista):
    """Sparse volumes. The threshold is a share of the largest value of A'y, from which on all are 0."""
    s = task.settings
    y = y - s.background
    largest = task.A.A_adjoint(task.weight * y).amax((1, 2, 3), keepdim=True).clamp_min(0)
    return solver(task.A, y, s.n_iter_sparse, s.threshold * largest, task.mask, task.step)


def fista(task, y):
    """ISTA with momentum."""
    return ista(task, y, solvers.fista)


def network(task, y):
    """An unfolded network, trained for this microscope."""
    if task.network is None:
        raise ValueError("methods lista and em: expected a network, got none; train one or name its weights")
    return task.network(task.A, y, task.prepared, task.settings.background)


METHODS = {
    "refocus": refocus,
    "rl": rl,
    "rl_prevedel": rl_prevedel,
    "rl_over": rl_over,
    "rl_aa": rl_aa,
    "ista": ista,
    "fista": fista,
    "lista": network,
    "em": network,
}


@torch.no_grad()
def reconstruct(method, A, frames, settings, network=None, mask=None, optics=None):
    """Volumes (T, Z, Y, X) of rectified frames (T, V, U), tensors of one dtype; all frames on their own.

    method : name in METHODS; A : LightField, or a `Task` that holds it and is used for many blocks;
    settings : InferSettings; network : for `lista` and `em`; mask (V, U) : trust in each pixel;
    optics : for `rl_aa`.
    Raises ValueError for an unknown method, a network that is missing, and frames of another size.
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    task = A if isinstance(A, Task) else Task(A, settings, network, mask, optics)
    if tuple(frames.shape[1:]) != tuple(task.A.out_shape):
        raise ValueError(
            f"frames: expected (time, v, u) with {tuple(task.A.out_shape)} pixels, got "
            f"{tuple(frames.shape)}; rectify them with the calibration of this operator"
        )
    return METHODS[method](task, frames)
