"""From photons to camera counts."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Camera:
    """counts = round(offset + gain (Poisson(photons) + read noise)), between 0 and `saturation`.

    gain: counts per photo-electron; read_noise: electrons; photons: photo-electrons (quantum efficiency
    included). Mean counts are offset + gain photons, their variance gain^2 (photons + read_noise^2) + 1/12.
    """

    offset: float = 100.0
    gain: float = 1.0
    read_noise: float = 1.6
    saturation: int = 65535

    def record(self, photons, rng):
        """Counts uint16 of expected photons (any shape) with a numpy Generator."""
        electrons = rng.poisson(photons).astype(np.float32)
        electrons += self.read_noise * rng.standard_normal(electrons.shape, dtype=np.float32)
        counts = np.rint(self.offset + self.gain * electrons)
        return np.clip(counts, 0, self.saturation).astype(np.uint16)
