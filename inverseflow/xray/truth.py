"""The truth of a virtual painting in the units of its calibrated radiograph."""


def true_layers(painting, images):
    """x1 and x2 (y, x) of a virtual painting, as far as a sum of layers can tell them.

    painting : Dataset with x1, x2 in optical depth; images : calibrated Dataset, x = (depth - offset) / scale.
    The offset is a constant, which belongs to neither layer: it is taken from none.
    """
    layers = painting[["x1", "x2"]]
    return layers / images["x"].attrs["scale"]
