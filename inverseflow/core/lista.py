"""Learned ISTA: the loop of `solvers.ista` for sparse codes whose numbers are learned, in three forms.

    x <- S( x - a_k E_k'(D_k x - y),  th_k ),   k = 1 ... n_layer,   x = 0 at first

    form      learned in each layer                     source
    steps     step a_k and threshold th_k               Ablin et al., NeurIPS (2019)
    coupled   and E_k; D_k stays the dictionary         Chen et al., NeurIPS (2018)
    untied    and D_k                                   Gregor & LeCun, ICML (2010); Sreter & Giryes (2018)

D_k and E_k are matrices or convolutions. Untrained they are the dictionary, a_k = 1/||D||^2 and th_k = a_k
threshold: every form then gives n_layer iterations of ISTA, to the last bit. In the terms of Gregor & LeCun
(x <- S(W x + V y)) the untied form is V = a E', W = I - a E'D: W has no more freedom than its factors, which
is what makes it a convolution of the atoms' size where they are convolutions.
"""

import torch
from torch import nn

from .convolution import Convolution
from .operators import LinearOperator
from .progress import progress
from .solvers import _shrink, _shrink_positive
from .sparse_coding import objective
from .training import (
    Average,
    Curves,
    clip_gradients,
    load_checkpoint,
    save_checkpoint,
    step_rng,
    warmup_cosine,
)

FORMS = ("steps", "coupled", "untied")
NUMBERS_RATE = 10.0  # rate of log_step and log_threshold, as a multiple of that of the filters
N_CHECK = 20  # times in a training that the averaged weights are tried on measurements held out


class Matrix(LinearOperator):
    """A dense matrix (m, n) as an operator: x (batch, n) -> y (batch, m)."""

    def __init__(self, matrix):
        m, n = matrix.shape
        super().__init__((n,), (m,))
        self.register_buffer("matrix", matrix)

    def multiply(self, x):
        return x @ self.matrix.T

    def multiply_adjoint(self, y):
        return y @ self.matrix

    @torch.no_grad()
    def norm_squared(self, n_iter=None, seed=None):
        """Square of the largest singular value; the arguments are not used."""
        return float(torch.linalg.matrix_norm(self.matrix.double(), 2)) ** 2


class Lista(nn.Module):
    """Sparse codes in n_layer learned iterations: y (batch, m) -> (batch, n), or images (batch, C, y, x) of
    any size -> code maps (batch, K, y, x).

    Parameters
    ----------
    dictionary : tensor (m, n), a matrix, or (C, K, h, w), atoms of a convolution as in `Convolution`; the
        form "steps" also takes any operator.
    form : "steps", "coupled" or "untied", see the module.
    n_layer : iterations
    threshold : number above 0, of the problem min 0.5 ||D x - y||^2 + threshold sum |x|
    nonnegative : over x >= 0
    boundary : of convolutions, "circular" or "zero"
    step : of the untrained layers; 1/||D||^2 unless given, of convolutions on a grid 16 atoms wide

    `log_step` and `log_threshold` are natural logarithms of factors on steps and thresholds, of a layer or,
    in the other forms, of each code of a layer; 0 until trained. Raises ValueError for what does not fit.
    """

    def __init__(
        self, dictionary, form, n_layer, threshold, nonnegative=False, boundary="circular", step=None
    ):
        super().__init__()
        operator = isinstance(dictionary, nn.Module)
        if form not in FORMS:
            raise ValueError(f"form: expected one of {', '.join(FORMS)}, got {form!r}")
        if operator and form != "steps":
            raise ValueError(
                f"form {form} learns the dictionary itself: give it as a tensor, not an operator"
            )
        if not operator and dictionary.ndim not in (2, 4):
            raise ValueError(
                "dictionary: expected a matrix (m, n) or atoms (C, K, h, w), got a tensor of shape "
                f"{tuple(dictionary.shape)}"
            )
        if n_layer < 1 or not threshold > 0:
            raise ValueError(f"expected n_layer >= 1 and threshold > 0, got {n_layer} and {threshold}")
        self.form, self.threshold, self.boundary, self.n_layer = form, float(threshold), boundary, n_layer
        self.prox = _shrink_positive if nonnegative else _shrink
        if operator:
            self.operator, self.dictionary, start = dictionary, None, next(iter(dictionary.buffers()), None)
        else:
            self.register_buffer("dictionary", dictionary.detach().clone())
            start = self.dictionary
        kind = {} if start is None else {"dtype": start.dtype.to_real(), "device": start.device}
        self.step = 1 / self.operator_for(None).norm_squared() if step is None else float(step)
        self.register_buffer("ista_step", torch.full((), self.step, **kind))
        self.register_buffer("ista_shrinkage", torch.full((), self.step * self.threshold, **kind))
        per_code = () if form == "steps" else (dictionary.shape[1], *[1] * (dictionary.ndim - 2))
        self.log_step = nn.Parameter(torch.zeros(n_layer, *per_code, **kind))
        self.log_threshold = nn.Parameter(torch.zeros(n_layer, *per_code, **kind))
        if form != "steps":
            self.analysis = nn.Parameter(self.dictionary.repeat(n_layer, *[1] * dictionary.ndim))
        if form == "untied":
            self.synthesis = nn.Parameter(self.dictionary.repeat(n_layer, *[1] * dictionary.ndim))

    def operator_for(self, y):
        """The operator of the dictionary for images of the size of y."""
        return self.operator if self.dictionary is None else self._operator(self.dictionary, y)

    def _operator(self, weights, y):
        if weights.ndim == 2:
            return Matrix(weights)
        shape = [16 * n for n in weights.shape[-2:]] if y is None else y.shape[-2:]
        return Convolution(weights, shape, self.boundary)

    def forward(self, y, n_layer=None, watch=None):
        """Codes of y after n_layer layers, all by default; watch(k, x) is called after layer k."""
        A = self.operator_for(y)
        if y.shape[1:] != A.out_shape:
            shape = ", ".join(map(str, A.out_shape))
            raise ValueError(f"Lista: expected y of shape (batch, {shape}), got {tuple(y.shape)}")
        x = y.new_zeros(len(y), *A.in_shape)
        for k in range(self.n_layer if n_layer is None else n_layer):
            draw, back = self._maps(A, y, k)
            step = self.ista_step * self.log_step[k].exp()
            shrinkage = self.ista_shrinkage * self.log_threshold[k].exp()
            x = self.prox(x - step * back(draw(x) - y), shrinkage)
            if watch:
                watch(k, x)
        return x

    def _maps(self, A, y, k):
        """D_k and E_k' of a layer; those that are learned carry their gradient."""
        draw, back = A.A, A.A_adjoint
        if self.form != "steps":
            back = self._operator(self.analysis[k], y).multiply_adjoint
        if self.form == "untied":
            draw = self._operator(self.synthesis[k], y).multiply
        return draw, back

    def cost(self, x, y):
        """0.5 ||D x - y||^2 + threshold sum |x| of every member of the batch; D is the dictionary given."""
        return objective(self.operator_for(y), y, x, self.threshold)


def train_lista(
    network,
    draw,
    n_step=1000,
    rate=5e-3,
    seed=0,
    every_layer=0.1,
    average=0.99,
    checkpoint=None,
    key="",
    save_every=200,
    stop_after=None,
):
    """Train a `Lista` without labels, on the cost that ISTA minimises (Ablin et al., 2019).

    Parameters
    ----------
    network : Lista, changed in place; it ends with those averaged weights that did best on measurements held
        out, as it was if none did better
    draw(rng) : measurements y (batch, ...) of a step, from its numpy Generator
    n_step, rate : steps of Adam and their highest rate
    every_layer : share in [0, 1] of the loss that is the mean cost of all layers rather than of the last
    average : of the exponentially averaged weights
    checkpoint : file from which an interrupted training goes on, and which it keeps; key : what it belongs to
    stop_after : steps of this call (a test of resuming)

    Returns `Curves` of the loss, the cost after the last layer (`cost`, and now and then `held_out` with the
    averaged weights), all as shares of 0.5 ||y||^2, and the norm of the gradient. The same seed gives the
    same weights, resumed or not. Raises CheckpointError when the checkpoint belongs to another training.
    """
    numbers = [network.log_step, network.log_threshold]
    filters = [p for p in network.parameters() if not any(p is n for n in numbers)]
    groups = [{"params": filters, "times": 1.0}, {"params": numbers, "times": NUMBERS_RATE}]
    optimiser = torch.optim.Adam([g for g in groups if g["params"]], lr=rate)
    mean, best, curves = Average(network, average), Average(network), Curves()
    state = {"network": network, "optimiser": optimiser, "average": mean, "best": best}
    start = load_checkpoint(checkpoint, key, state, curves) if checkpoint else 0
    end = n_step if stop_after is None else min(n_step, start + stop_after)
    held_out = [draw(step_rng(seed, step)) for step in range(n_step, n_step + 4)]
    least = share_of(network, best.values, held_out)
    for step in progress(range(start, end), f"train lista {network.form}"):
        for group in optimiser.param_groups:
            group["lr"] = rate * group["times"] * warmup_cosine(step, n_step)
        shares = layer_shares(network, draw(step_rng(seed, step)), network.n_layer if every_layer else 1)
        loss = (1 - every_layer) * shares[-1].mean() + every_layer * torch.stack(shares).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        row = {"gradient": clip_gradients(network, 1.0), "loss": loss, "cost": shares[-1].mean()}
        optimiser.step()
        mean.update(network)
        if (step + 1) % max(n_step // N_CHECK, 1) == 0 or step + 1 == n_step:
            row["held_out"] = share_of(network, mean.values, held_out)
            if row["held_out"] < least:
                least = row["held_out"]
                best.load_state_dict(mean.state_dict())
        curves.add(step, **row)
        if checkpoint and ((step + 1) % save_every == 0 or step + 1 == end):
            save_checkpoint(checkpoint, key, step + 1, state, curves)
    network.load_state_dict(best.values)
    return curves


@torch.no_grad()
def share_of(network, values, held_out):
    """Mean share of `layer_shares` after the last layer, of the network with these values of its weights."""
    shares = [(network.cost(torch.func.functional_call(network, values, (y,)), y), y) for y in held_out]
    return float(torch.cat([cost / unit_cost(y) for cost, y in shares]).mean())


def unit_cost(y):
    """0.5 ||y||^2, the cost of codes zero: (batch,)."""
    return 0.5 * y.double().square().flatten(1).sum(1).clamp_min(1e-12)


def layer_shares(network, y, n_last):
    """Cost after each of the last layers as a share of 0.5 ||y||^2, of codes zero: a list of (batch,)."""
    first, shares = network.n_layer - n_last, []
    unit = unit_cost(y)
    network(y, watch=lambda k, x: shares.append(network.cost(x, y) / unit) if k >= first else None)
    return shares
