"""Linear operators: a map A, its exact adjoint, and gradients through both."""

import torch


class _Apply(torch.autograd.Function):
    """A or its adjoint, whichever is asked for; each is the gradient of the other, to any order."""

    @staticmethod
    def forward(x, operator, adjoint):
        return (operator.multiply_adjoint if adjoint else operator.multiply)(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, ctx.operator, ctx.adjoint = inputs

    @staticmethod
    def backward(ctx, grad):
        return _Apply.apply(grad, ctx.operator, not ctx.adjoint), None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        return _Apply.apply(tangent, ctx.operator, ctx.adjoint)


class LinearOperator(torch.nn.Module):
    """A linear map and its exact adjoint; the first axis of what they take and give is the batch.

    A subclass defines `multiply` and `multiply_adjoint`, without gradients; `A`, `A_adjoint` and calling it
    are made from them (names of deepinv). Neither scales, clips or adds anything.

    Parameters
    ----------
    in_shape, out_shape : shapes of one x and one y, without the batch.

    Raises ValueError when a tensor does not fit. Forward mode and double gradients work too.
    """

    def __init__(self, in_shape, out_shape):
        super().__init__()
        self.in_shape, self.out_shape = tuple(in_shape), tuple(out_shape)

    def multiply(self, x):
        raise NotImplementedError

    def multiply_adjoint(self, y):
        raise NotImplementedError

    def forward(self, x):
        return self.A(x)

    def A(self, x):
        """A x: (batch, *in_shape) -> (batch, *out_shape)."""
        self._check(x, self.in_shape, "x")
        return _Apply.apply(x, self, False)

    def A_adjoint(self, y):
        """A^T y: (batch, *out_shape) -> (batch, *in_shape)."""
        self._check(y, self.out_shape, "y")
        return _Apply.apply(y, self, True)

    def _check(self, tensor, shape, name):
        if tuple(tensor.shape[1:]) != shape:
            raise ValueError(
                f"{type(self).__name__}: expected {name} of shape (batch, {', '.join(map(str, shape))}), "
                f"got {tuple(tensor.shape)}"
            )

    @torch.no_grad()
    def norm_squared(self, n_iter=30, seed=0):
        """Largest eigenvalue of A^T A by power iteration from a seeded positive start: a lower bound.

        It grows with n_iter; for operators without negative entries, as those of imaging, 30 iterations give
        it to a per cent or better.
        """
        like = next((b for b in self.buffers() if b.is_floating_point()), torch.empty(0))
        generator = torch.Generator().manual_seed(seed)
        x = torch.rand(1, *self.in_shape, generator=generator, dtype=like.dtype).to(like.device)
        value = 0.0
        for _ in range(n_iter):
            norm = x.norm()
            if norm == 0:
                return 0.0
            x = self.A_adjoint(self.A(x / norm))
            value = float(x.norm())
        return value
