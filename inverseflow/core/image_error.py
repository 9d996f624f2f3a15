"""The error of images that cannot be used."""


class ImageError(ValueError):
    """An image that cannot be used: file, expected, found, way out."""
