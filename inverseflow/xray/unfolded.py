"""The unfolded separation network: the alternation that separates a mixed radiograph, with learned numbers.

min over y1, y2, z1, z2 of  0.5 |x - y1 - y2|^2 + 0.5 tau sum_i |y_i - sum_k Theta_k * z_ik|^2
    + 0.5 gamma sum_s |r_s - phi_s y1|^2 + sum_i lambda_i |z_i|_1 + sum_i mu_i |(W y1) . (W y2)|_1

One layer is one step of it: codes by a proximal gradient step, y2 and then y1 by a gradient step and the prox
of the exclusion term. Each number, filter and threshold of each layer is learned; what it starts from is
exactly the step. Source: Pu et al., IEEE TIP 31 (2022), arXiv 2201.09167.
"""

import torch
import torch.nn.functional as F
from torch import nn

from inverseflow.core.exclusion import prox_exclusion

from .code_step import code_step
from .grey import grey

N_COLOUR = {"rgb": 3, "luminance": 1}


def convolve(image, filters, bias=None):
    """Filters (out, in, odd, odd) over images (batch, in, y, x), reflected at the borders."""
    half = filters.shape[-1] // 2
    return F.conv2d(F.pad(image, (half,) * 4, mode="reflect"), filters, bias)


def inverse_softplus(value):
    """The number whose softplus is `value`."""
    value = torch.as_tensor(value, dtype=torch.float64)
    return torch.log(torch.expm1(value)).float()


class Layer(nn.Module):
    """One iteration (see the module). Images are (batch, 1, y, x), colours (batch, channel, y, x).

    Parameters
    ----------
    atoms : tensor (n_filter, 1, size, size), Theta: what all layers start from
    n_colour : channels of the colour image; n_back : of that of the back, 0 when there is none
    levels : of the Haar frame
    step, tau, gamma, threshold, mu (mu_1, mu_2) : of the iteration that an untrained layer equals
    """

    def __init__(self, atoms, n_colour, n_back, levels, step, tau, gamma, threshold, mu):
        super().__init__()
        size, self.levels = atoms.shape[-1], levels
        code_step = 1 / squared_norm(atoms)
        self.analysis = nn.Parameter(code_step * atoms.flatten(1))
        self.synthesis = nn.Parameter(atoms.flatten(1).T.clone())
        self.threshold = nn.Parameter(inverse_softplus(code_step * threshold).repeat(2))
        self.mu = nn.Parameter(inverse_softplus(mu))
        self.y2 = nn.Parameter(gradient_step(size, n_back, step, tau, gamma))
        self.y1 = nn.Parameter(gradient_step(size, n_colour, step, tau, gamma))

    def forward(self, x, y1, y2, z1, z2, rgb, rgb_back=None):
        threshold, mu = F.softplus(self.threshold), F.softplus(self.mu)
        z1, drawn1 = code_step(y1, z1, self.analysis, self.synthesis, threshold[0])
        z2, drawn2 = code_step(y2, z2, self.analysis, self.synthesis, threshold[1])
        known = [x, y1, y2, drawn2] + ([] if rgb_back is None else [rgb_back])
        y2 = prox_exclusion(convolve(torch.cat(known, 1), self.y2), y1, mu[1], self.levels)
        y1 = prox_exclusion(convolve(torch.cat([x, y2, y1, drawn1, rgb], 1), self.y1), y2, mu[0], self.levels)
        return y1, y2, z1, z2


def squared_norm(atoms, n=64):
    """Largest eigenvalue of Theta Theta': max over the frequencies of sum_k |Theta_k|^2."""
    return float(torch.fft.rfft2(atoms[:, 0], (n, n)).abs().square().sum(0).max())


def gradient_step(size, n_colour, step, tau, gamma):
    """Filters (1, 4 + n_colour, size, size) on (x, other, y, Theta z, colours) that give

    y - step [(other + y - x) + tau (y - Theta z) + gamma phi sum_s (phi y - r_s)],   phi = n_colour^-1/2
    """
    phi = n_colour**-0.5 if n_colour else 0.0
    pull = gamma if n_colour else 0.0
    taps = [step, -step, 1 - step * (1 + tau + pull), step * tau] + [step * pull * phi] * n_colour
    filters = torch.zeros(1, len(taps), size, size)
    filters[0, :, size // 2, size // 2] = torch.tensor(taps)
    return filters


def random_atoms(n_filter, size, seed):
    """Unit-norm atoms (n_filter, 1, size, size) from a generator of its own."""
    atoms = torch.randn(n_filter, 1, size, size, generator=torch.Generator().manual_seed(seed))
    return atoms / atoms.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


class Unfolded(nn.Module):
    """Separate x (batch, 1, y, x) into x1, x2 of the same shape, given the colours of one or both sides.

    Parameters
    ----------
    n_layer, n_filter, size : 5 layers of 64 filters of 5x5 in the paper; layers do not share weights
    levels : of the Haar frame in the exclusion step
    decoder : "linear" (one filter per colour from x1) or "nonlinear" (the paper's: three layers of 64 filters
        with ReLU, and a linear one)
    seen : the colours as the layers see them, "rgb" or "luminance" (as published)
    start : "luminance", "half" (y1 = x/2), or "guide" (y1 is given to `forward`)
    double_sided : rgb_back guides the other layer in the same way
    step, tau, gamma, threshold, mu : see `Layer`; mu_2 is the larger one, for what x2 has in common with x1
        is most often the visible layer's
    seed : of the atoms and of the decoder

    With the decoder "nonlinear" and seen "luminance" it has the 225,363 parameters of the published
    one. `forward` gives (x1, x2, r1, r2): r1, r2 are the decoded colours, r2 None without the back.
    """

    def __init__(
        self,
        n_layer=5,
        n_filter=64,
        size=5,
        levels=3,
        decoder="linear",
        seen="rgb",
        start="luminance",
        double_sided=False,
        step=0.5,
        tau=0.1,
        gamma=0.0,
        threshold=0.02,
        mu=(0.03, 0.12),
        seed=0,
    ):
        super().__init__()
        self.config = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        self.seen, self.start, self.size, self.levels = seen, start, size, levels
        n_colour = N_COLOUR[seen]
        n_back = n_colour if double_sided else 0
        atoms = random_atoms(n_filter, size, seed)
        numbers = (levels, step, tau, gamma, threshold, mu)
        self.layers = nn.ModuleList(Layer(atoms, n_colour, n_back, *numbers) for _ in range(n_layer))
        self.psi = nn.Parameter(torch.zeros(1, 1, size, size))
        nn.init.constant_(self.psi[..., size // 2, size // 2].detach(), 1.0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.decoder = new_decoder(decoder, n_colour, size)
            self.decoder_back = new_decoder(decoder, n_back, size) if double_sided else None

    def forward(self, x, rgb, rgb_back=None, guide=None):
        x1, x2 = self.layers_of(x, rgb, rgb_back, guide)
        return x1, x2, self.decoder(x1), None if rgb_back is None else self.decoder_back(x2)

    def layers_of(self, x, rgb, rgb_back=None, guide=None):
        """x1 and x2 alone, as inference wants them."""
        if (rgb_back is None) != (self.decoder_back is None):
            expected = "an" if rgb_back is None else "no"
            raise ValueError(f"network: expected {expected} image of the back; train it for this painting")
        r, r_back = self.as_seen(rgb), None if rgb_back is None else self.as_seen(rgb_back)
        y1 = self.begin(x, rgb, guide)
        y2, z1, z2 = x - y1, None, None
        for layer in self.layers:
            y1, y2, z1, z2 = layer(x, y1, y2, z1, z2, r, r_back)
        return convolve(y1, self.psi), convolve(y2, self.psi)

    def as_seen(self, rgb):
        """The colours that the network sees: all three, or their luminance."""
        return rgb if self.seen == "rgb" else grey(rgb)[:, None]

    def begin(self, x, rgb, guide):
        """y1 before the first layer."""
        if self.start == "guide":
            if guide is None:
                raise ValueError(
                    "network: start is 'guide', expected a guide, got none; give the start of y1"
                )
            return guide
        return 0.5 * (x if self.start == "half" else grey(rgb)[:, None])

    @property
    def receptive_field(self):
        """Pixels on either side of a pixel that its x1 and x2 may depend on."""
        half, haar = self.size // 2, 2**self.levels - 1
        y, z = 0, 0  # how far y (or y1, y2) and z of the last layer reach back to the inputs
        for _ in self.layers:
            z = max(z + 2 * half, y + half)
            drawn = z + half
            y2 = max(max(y, drawn) + half + haar, y + haar)
            y = max(max(y2, drawn) + half + haar, y2 + haar)
        return y + half


class Convolve(nn.Module):
    """A convolution with bias that reflects at the borders."""

    def __init__(self, n_in, n_out, size):
        super().__init__()
        drawn = nn.Conv2d(n_in, n_out, size)
        self.weight, self.bias = drawn.weight, drawn.bias

    def forward(self, image):
        return convolve(image, self.weight, self.bias)


def new_decoder(form, n_colour, size, n_hidden=64):
    """Colours from one layer of the radiograph."""
    if form == "linear":
        linear = Convolve(1, n_colour, size)
        nn.init.zeros_(
            linear.weight
        )  # grey at first, so that it does not pull at the layers before it is learned
        nn.init.constant_(linear.bias, 0.5)
        return linear
    widths = [1, n_hidden, n_hidden, n_hidden, n_colour]
    parts = [p for a, b in zip(widths, widths[1:]) for p in (Convolve(a, b, size), nn.ReLU())]
    return nn.Sequential(*parts[:-1])
