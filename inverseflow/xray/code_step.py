"""The step that takes nine tenths of the unfolded network's time, z <- S(z + P1 * (y - P2 * z)) and P2 * z.

With one channel on one side, convolutions of torch run at a tenth of what the processor can: here both are
matrix products over all taps, and the backward pass is written out so that it reads the codes, by far the
largest arrays, as seldom as it can. Images are reflected at their borders.
"""

from math import isqrt

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable


def columns(y, size):
    """Neighbourhoods of y (batch, 1, y, x): (batch, size^2, y * x)."""
    return F.unfold(F.pad(y, (size // 2,) * 4, mode="reflect"), size)


def columns_adjoint(taps, like, size):
    """Adjoint of `columns`: (batch, size^2, y * x) -> as `like`."""
    half = size // 2
    padded = F.fold(taps, [n + 2 * half for n in like.shape[-2:]], size)
    return torch.ops.aten.reflection_pad2d_backward(padded, like, (half,) * 4)


def summed(taps, like, size):
    """Sum of the taps of a convolution, each moved to its place: (batch, size^2, y * x) -> as `like`."""
    half, shape = size // 2, like.shape[-2:]
    padded = F.pad(taps.unflatten(-1, shape), (half,) * 4, mode="reflect")
    whole = F.fold(padded.flatten(2), [n + 4 * half for n in shape], size)
    return whole[..., 2 * half : 2 * half + shape[0], 2 * half : 2 * half + shape[1]].contiguous()


def summed_adjoint(image, size):
    """Adjoint of `summed`: (batch, 1, y, x) -> (batch, size^2, y * x)."""
    half, shape = size // 2, image.shape[-2:]
    moved = F.unfold(F.pad(image, (2 * half,) * 4), size)
    moved = moved.unflatten(-1, [n + 2 * half for n in shape])
    like = image.expand(-1, size**2, -1, -1)
    return torch.ops.aten.reflection_pad2d_backward(moved, like, (half,) * 4).flatten(2)


def analyse(y, atoms):
    """P1 * y: (batch, 1, y, x) and (n, size^2) -> (batch, n, y * x)."""
    return _times(atoms, columns(y, isqrt(atoms.shape[1])))


def synthesise(z, atoms, like):
    """P2 * z: (batch, n, y * x) and (size^2, n) -> as `like`; adjoint of `analyse` off the borders."""
    return summed(_times(atoms, z), like, isqrt(atoms.shape[0]))


def _times(matrix, batch):
    return torch.bmm(matrix.expand(len(batch), -1, -1), batch)


class _CodeStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y, z, analysis, synthesis, threshold):
        size = isqrt(analysis.shape[1])
        residual = y if z is None else y - synthesise(z, synthesis, y)
        neighbours = columns(residual, size)
        if z is None:
            u = _times(analysis, neighbours)
        else:
            u = torch.baddbmm(z, analysis.expand(len(z), -1, -1), neighbours)
        new = F.softshrink(u, float(threshold))
        ctx.save_for_backward(y, z, analysis, synthesis, neighbours, new)
        return new, synthesise(new, synthesis, y)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_new, grad_drawn):
        y, z, analysis, synthesis, neighbours, new = ctx.saved_tensors
        size = isqrt(analysis.shape[1])
        expanded = synthesis.T.expand(len(y), -1, -1)
        taps = summed_adjoint(grad_drawn, size)
        grad_synthesis = torch.bmm(taps, new.transpose(1, 2)).sum(0)
        grad = torch.baddbmm(grad_new, expanded, taps)
        sign = new.sign()
        grad_threshold = -torch.dot(grad.flatten(), sign.flatten())
        grad.mul_(sign.abs_())
        grad_analysis = torch.bmm(grad, neighbours.transpose(1, 2)).sum(0)
        grad_y = columns_adjoint(_times(analysis.T, grad), y, size)
        if z is None:
            return grad_y, None, grad_analysis, grad_synthesis, grad_threshold
        taps = summed_adjoint(-grad_y, size)
        grad_synthesis += torch.bmm(taps, z.transpose(1, 2)).sum(0)
        return grad_y, grad.baddbmm_(expanded, taps), grad_analysis, grad_synthesis, grad_threshold


def code_step(y, z, analysis, synthesis, threshold):
    """One proximal gradient step of the codes, and what they draw.

    y (batch, 1, y, x); z (batch, n, y * x) or None for zeros; analysis P1 (n, size^2), synthesis P2
    (size^2, n), threshold (a tensor without dimensions). Returns z in the same form, and P2 * z as y.
    Without gradients z is overwritten: the codes of a tile are then in memory once.
    """
    if torch.is_grad_enabled():
        return _CodeStep.apply(y, z, analysis, synthesis, threshold)
    residual = y if z is None else y - synthesise(z, synthesis, y)
    neighbours = columns(residual, isqrt(analysis.shape[1]))
    if z is None:
        z = _times(analysis, neighbours)
    else:
        z.baddbmm_(analysis.expand(len(z), -1, -1), neighbours)
    del neighbours
    torch.ops.aten.softshrink.out(z, float(threshold), out=z)
    return z, synthesise(z, synthesis, y)
