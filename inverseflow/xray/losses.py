"""What the unfolded network is trained on: it explains the colours and the radiograph, and shares no edges.

Source: Pu et al., IEEE TIP 31 (2022), arXiv 2201.09167.
"""

from inverseflow.core.exclusion import exclusion_loss


def mean_square(a, b, weight=None):
    """Mean of (a - b)^2, weighted by trust in [0, 1] (batch, 1, y, x) when given."""
    error = (a - b).square()
    if weight is None:
        return error.mean()
    return (weight * error).sum() / (weight.sum() * a.shape[1]).clamp_min(1)


def separation_losses(layers, x, colours, colours_back=None, weight=None, held=None, levels=3):
    """Terms by name of what `Unfolded` gave, layers = (x1, x2, r1, r2), for x and the colours that it saw.

    colour: mean square of the decoded colours, of both sides when both are given; mix: of x1 + x2 - x;
    exclusion: the gradients that the layers share; hold: of x1 - held, x1 of the untrained network when that
    is given. The last is no term of the paper: without it the others lead away from a start that is better
    than luminance.
    """
    x1, x2, r1, r2 = layers
    terms = {"colour": mean_square(r1, colours, weight), "mix": mean_square(x1 + x2, x, weight)}
    if r2 is not None:
        terms["colour"] = terms["colour"] + mean_square(r2, colours_back, weight)
    if held is not None:
        terms["hold"] = mean_square(x1, held, weight)
    return terms | {"exclusion": exclusion_loss(x1, x2, levels)}
