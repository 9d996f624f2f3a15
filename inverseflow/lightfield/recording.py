"""A sample as the stages see it: the frames that its settings choose."""

from .movie_error import MovieError
from .read import open_movie


def open_recording(path, dataset=None, frame_ms=None, first_frame=0, last_frame=None):
    """Open a movie lazily, as `read.open_movie`, and keep frames first_frame to last_frame (inclusive).

    Raises MovieError when the movie is shorter than that.
    """
    movie = open_movie(path, dataset=dataset, frame_ms=frame_ms)
    n = movie.sizes["time"]
    for name, frame in (("first_frame", first_frame), ("last_frame", last_frame)):
        if frame is not None and frame >= n:
            raise MovieError(
                f"{movie.attrs['source']}: {name} must be below the {n} frames of the movie, got {frame}"
            )
    return movie.isel(time=slice(first_frame, None if last_frame is None else last_frame + 1))
