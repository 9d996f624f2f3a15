"""The error of every reader of movies."""


class MovieError(ValueError):
    """A movie cannot be read: the message names the file, what was expected, what was found, the way out."""
