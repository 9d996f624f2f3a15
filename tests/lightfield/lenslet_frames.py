"""Camera frames of lenslets with a known lattice, drawn point by point: no code in common with what is
tested."""

import numpy as np


def lattice(pitch, rotation_deg=0.0, origin=(9.3, 8.6), shear_deg=0.0):
    """(origin, along_v, along_u) of a square lattice, turned and sheared."""
    a, b = np.radians(rotation_deg), np.radians(rotation_deg - shear_deg)
    along_v = pitch * np.array([np.cos(a), np.sin(a)])
    along_u = pitch * np.array([-np.sin(b), np.cos(b)])
    return np.array(origin), along_v, along_u


def even_field(shape, origin, along_v, along_u, radius=0.45, uneven=True, bend=None, fine=3):
    """Pupil discs of `radius` pitches behind every lenslet, about 1 inside; light falls off to one side.

    bend : function of positions (..., 2) -> shift (..., 2), the distortion of the relay lens.
    """
    matrix = np.array([along_v, along_u]).T
    pitch = np.sqrt(abs(np.linalg.det(matrix)))
    total = np.zeros(shape)
    for i in range(fine):
        for j in range(fine):
            at = np.stack(np.indices(shape), axis=-1) + (np.array([i, j]) + 0.5) / fine - 0.5
            if bend is not None:
                at = at - bend(at)
            lens = (at - origin) @ np.linalg.inv(matrix).T
            away = (lens - np.round(lens)) @ matrix.T
            edge = (radius * pitch - np.hypot(*np.moveaxis(away, -1, 0))) / 1.2  # px, soft as by diffraction
            total += 1 / (1 + np.exp(-np.clip(4 * edge, -30, 30)))
    total /= fine**2
    if uneven:
        v, u = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
        total *= np.exp(-0.5 * ((v - 0.2) ** 2 + (u + 0.3) ** 2) / 0.9**2)
    return total


def camera(light, photons, seed=0, gain=2.0, offset=100, read_noise=1.6, frames=None):
    """uint16 counts: Poisson photons (`photons` where the light is 1) with read noise, gain and offset."""
    rng = np.random.default_rng(seed)
    light = light if frames is None else np.broadcast_to(light, (frames, *light.shape))
    electrons = rng.poisson(light * photons) + rng.normal(0, read_noise, light.shape)
    return np.clip(np.round(offset + gain * electrons), 0, 65535).astype(np.uint16)
