"""Muon: momentum whose direction weighs the same along every singular vector of a layer's kernel.

Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024).
"""

import torch

QUINTIC = (
    3.4445,
    -4.7750,
    2.0315,
)  # p(s) = a s + b s^3 + c s^5 brings s in (0, 1] to 0.7..1.2 in five rounds


def orthogonalised(matrix, n_iter=5):
    """About U V^T of matrices (..., rows, cols) = U S V^T, by Newton-Schulz iterations.

    Its singular values are within 0.6 to 1.3 where those of the input are above 1/200 of its norm.
    """
    a, b, c = QUINTIC
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-12)
    for _ in range(n_iter):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Steps of `lr` along orthogonalised Nesterov momentum, times sqrt(rows / cols) of tall kernels.

    parameters : kernels (out, in, ...) of hidden layers, taken as matrices (out, in * ...). First and last
    layers, biases and depthwise kernels do better with AdamW: see `groups`.
    """

    def __init__(self, parameters, lr=0.02, momentum=0.95):
        super().__init__(parameters, dict(lr=lr, momentum=momentum))

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            alike = {}  # kernels of one size are orthogonalised together: many small products are slow
            for p in group["params"]:
                if p.grad is None:
                    continue
                if not self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
                momentum = self.state[p]["momentum"].lerp_(p.grad, 1 - group["momentum"])
                ahead = p.grad.lerp(momentum, group["momentum"]).flatten(1)
                alike.setdefault(ahead.shape, []).append((p, ahead))
            for (rows, cols), members in alike.items():
                directions = orthogonalised(torch.stack([ahead for _, ahead in members]))
                rate = group["lr"] * max(1, rows / cols) ** 0.5
                for (p, _), direction in zip(members, directions):
                    p.sub_(direction.view(p.shape), alpha=rate)


def groups(module):
    """(for Muon, for AdamW): parameters of a module whose layers stand in the order of their use."""
    kernels = [p for p in module.parameters() if p.ndim > 1]
    ends = {id(p) for p in (kernels[0], kernels[-1])}
    hidden = [p for p in kernels if id(p) not in ends and p.shape[1] > 1]
    chosen = {id(p) for p in hidden}
    return hidden, [p for p in module.parameters() if id(p) not in chosen]
