"""Colours as grey."""

LUMINANCE = (0.299, 0.587, 0.114)


def grey(rgb):
    """Luminance of colours (..., 3, y, x), array or tensor: (..., y, x), of the same type."""
    return sum(weight * rgb[..., k, :, :] for k, weight in enumerate(LUMINANCE))
