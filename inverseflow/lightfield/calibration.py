"""What the calibration of a recording says: the grid, the corrections, and which pixels can be trusted."""

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property

import numpy as np

from inverseflow.core.stores import replacing

from .lenslets import Grid
from .rectify import Resampler


class CalibrationError(ValueError):
    """A recording cannot be calibrated; the message says why and what to set."""


@dataclass(frozen=True)
class Calibration:
    """From raw frames to frames of whole lenslets, and what is known about the camera.

    grid : `lenslets.Grid`; for rectified recordings the exact one.
    n_pixel : N, pixels per lenslet after rectification.
    raw_shape : (v, u). order : of the interpolation; 0 for recordings that are rectified already.
    dark : (v, u) float32, counts without light. flat : (V, U) float32, light that reaches each rectified
        pixel, around 1; frames are divided by it.
    pupil : (N, N) bool, pixels of a lenslet that carry light. trust : (V, U) float32, 1 or 0.
    camera : offset_counts, gain_counts_per_photon (None where the movie does not tell), read_noise_counts
        (None without dark frames), saturation_count, saturated_share (of the pixels that were looked at).
    quality : numbers about the grid, see `calibrate`. warnings : sentences.
    pictures : arrays that only pictures need: frame (v, u) where the lenslets were found, mean_frame (V, U),
        mean_lenslet (N, N).
    """

    grid: Grid
    n_pixel: int
    raw_shape: tuple
    order: int
    dark: np.ndarray
    flat: np.ndarray
    pupil: np.ndarray
    trust: np.ndarray
    camera: dict = field(default_factory=dict)
    quality: dict = field(default_factory=dict)
    warnings: tuple = ()
    pictures: dict = field(default_factory=dict)

    @property
    def lenslets(self):
        """(Ly, Lx)"""
        return self.grid.lenslets

    @property
    def shape(self):
        """(V, U) of a rectified frame."""
        return tuple(int(n * self.n_pixel) for n in self.grid.lenslets)

    @cached_property
    def _resample(self):
        return Resampler(self.grid, self.n_pixel, self.raw_shape, self.order) if self.order else None

    @cached_property
    def _dark_rectified(self):
        return self._resample(self.dark[None])[0] if self._resample else self.dark

    def rectify(self, frames):
        """Raw frames (T, v, u) -> rectified ones (T, N * Ly, N * Lx), float32 counts above dark.

        Noise below dark stays negative. Raises ValueError for frames of another size.
        """
        frames = np.asarray(frames)
        if frames.ndim != 3 or frames.shape[1:] != tuple(self.raw_shape):
            v, u = self.raw_shape
            raise ValueError(
                f"rectify: expected frames (time, {v}, {u}) as in the calibration, got {frames.shape}; "
                "calibrate this recording by itself"
            )
        out = self._resample(frames) if self._resample else frames.astype(np.float32)
        out -= self._dark_rectified
        out /= self.flat
        return out

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if not k.startswith("_")}

    def save(self, path):
        """Write a NetCDF file; the same calibration gives the same values."""
        import xarray as xr

        facts = {
            "grid": asdict(self.grid),
            "n_pixel": self.n_pixel,
            "order": self.order,
            "camera": self.camera,
            "quality": self.quality,
            "warnings": list(self.warnings),
        }
        raw, own, cell = ("v_raw", "u_raw"), ("v", "u"), ("q_v", "q_u")
        arrays = {
            "dark": (raw, np.asarray(self.dark, np.float32), {"units": "counts"}),
            "flat": (own, self.flat, {"long_name": "light that reaches a pixel, relative"}),
            "trust": (own, self.trust.astype(np.uint8), {"long_name": "1: pixel is used, 0: it is not"}),
            "pupil": (
                cell,
                self.pupil.astype(np.uint8),
                {"long_name": "1: pixel of a lenslet carries light"},
            ),
        }
        dims = {"frame": raw, "mean_frame": own, "mean_lenslet": cell}
        for name, values in self.pictures.items():
            arrays[name] = (dims[name], np.asarray(values, np.float32), {"units": "counts"})
        data = xr.Dataset(arrays, attrs={"calibration": json.dumps(facts, allow_nan=False)})
        packed = {name: {"zlib": True, "complevel": 1} for name in arrays}
        with replacing(path) as temporary:
            data.to_netcdf(temporary, engine="netcdf4", encoding=packed)

    @classmethod
    def load(cls, path):
        """Read what `save` wrote."""
        import xarray as xr

        with xr.open_dataset(path) as data:
            facts = json.loads(data.attrs["calibration"])
            values = {name: data[name].values for name in data.data_vars}
        grid = {k: _tuples(v) for k, v in facts["grid"].items()}
        return cls(
            grid=Grid(**grid),
            n_pixel=facts["n_pixel"],
            raw_shape=values["dark"].shape,
            order=facts["order"],
            dark=values["dark"],
            flat=values["flat"],
            pupil=values["pupil"].astype(bool),
            trust=values["trust"].astype(np.float32),
            camera=facts["camera"],
            quality=facts["quality"],
            warnings=tuple(facts["warnings"]),
            pictures={k: values[k] for k in ("frame", "mean_frame", "mean_lenslet") if k in values},
        )


def _tuples(value):
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
