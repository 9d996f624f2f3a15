"""Noise schedules of diffusion models: betas, their products, fewer steps, one step back.

x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps, t = 0 .. T - 1, with abar_t the product of 1 - beta up to t
(Ho et al., NeurIPS 2020). Images on -1..1.
"""

import torch


class Schedule:
    """A diffusion of T steps.

    betas : T numbers between 0 and 1, the variance that each step adds.

    `alphas_bar` and `alphas_bar_before` are abar_t and abar_{t-1}, 1 before the first step; float64 (T,).
    Everywhere t is a number, or a tensor (batch,) of integers with one for each image.
    """

    def __init__(self, betas):
        self.betas = torch.as_tensor(betas, dtype=torch.float64)
        if self.betas.ndim != 1 or not len(self.betas) or not ((self.betas > 0) & (self.betas < 1)).all():
            raise ValueError("Schedule: expected betas, one number between 0 and 1 for each step")
        self.alphas_bar = torch.cumprod(1 - self.betas, 0)
        self.alphas_bar_before = torch.cat([torch.ones(1, dtype=torch.float64), self.alphas_bar[:-1]])

    @classmethod
    def linear(cls, n_step=1000, first=1e-4, last=0.02):
        """Betas that grow evenly from `first` to `last`."""
        return cls(torch.linspace(first, last, n_step, dtype=torch.float64))

    def __len__(self):
        return len(self.betas)

    def respaced(self, n):
        """(times, betas) of a diffusion of n of the T steps, spread evenly from the first to the last.

        times : list of n rising t, at which the network is asked; betas : float64 (n,), with the same
        abar as here at those times, so that `Schedule(betas)` does its steps.
        """
        if not 1 <= n <= len(self):
            raise ValueError(f"respaced: expected from 1 to {len(self)} steps, got {n}")
        times = torch.linspace(0, len(self) - 1, n, dtype=torch.float64).round().long()
        times = times if n > 1 else torch.tensor([len(self) - 1])
        kept = self.alphas_bar[times]
        before = torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
        return times.tolist(), 1 - kept / before

    def noised(self, x_0, t, noise):
        """x_t of a clean x_0 (batch, channel, y, x) and standard normal noise of its shape."""
        abar = self._of(self.alphas_bar, t, x_0)
        return abar.sqrt().to(x_0) * x_0 + (1 - abar).sqrt().to(x_0) * noise

    def clean(self, x_t, eps, t):
        """The x_0 that x_t and its noise eps belong to."""
        abar = self._of(self.alphas_bar, t, x_t)
        return (1 / abar).sqrt().to(x_t) * x_t - (1 / abar - 1).sqrt().to(x_t) * eps

    def noise(self, x_t, x_0, t):
        """The noise eps that x_t holds when x_0 is clean."""
        abar = self._of(self.alphas_bar, t, x_t)
        return (x_t - abar.sqrt().to(x_t) * x_0) / (1 - abar).sqrt().to(x_t)

    def posterior(self, x_0, x_t, t):
        """(mean, standard deviation) of x_{t-1} given x_t and x_0; the deviation is 0 at t = 0.

        Eqs. 6 and 7 of Ho et al.; the deviation is that of beta tilde.
        """
        beta, abar, before = (
            self._of(values, t, x_t) for values in (self.betas, self.alphas_bar, self.alphas_bar_before)
        )
        of_clean = before.sqrt() * beta / (1 - abar)
        of_noisy = (1 - beta).sqrt() * (1 - before) / (1 - abar)
        deviation = (beta * (1 - before) / (1 - abar)).sqrt()
        return of_clean.to(x_t) * x_0 + of_noisy.to(x_t) * x_t, deviation.to(x_t)

    def ddim(self, x_0, eps, t, eta):
        """(mean, standard deviation) of x_{t-1} by DDIM (Song et al., ICLR 2021, eqs. 12 and 16).

        eta 0 draws nothing; with eta 1 and eps = `noise(x_t, x_0, t)` it is `posterior`.
        """
        abar, before = (self._of(values, t, x_0) for values in (self.alphas_bar, self.alphas_bar_before))
        deviation = eta * ((1 - before) / (1 - abar) * (1 - abar / before)).sqrt()
        along = (1 - before - deviation.square()).clamp_min(0).sqrt()
        return before.sqrt().to(x_0) * x_0 + along.to(x_0) * eps, deviation.to(x_0)

    def _of(self, values, t, like):
        """values[t] as (batch or 1, 1, 1, 1), float64, where `like` is."""
        t = torch.as_tensor(t).reshape(-1).cpu()
        return values[t].reshape(-1, *[1] * (like.ndim - 1)).to(like.device)
