"""What a reconstruction does to a labelled scene: volume error, gain and crosstalk, and the time it takes."""

import time

import numpy as np
import torch

from inverseflow.core.metrics import correlation, nrmse

from .crosstalk import crosstalk, responses
from .losses import mask_means
from .training_set import add_noise, at_light

BRIGHTER = 0.5


@torch.no_grad()
def measure(reconstruct, scene, seed=0, photons=50.0):
    """Figures of a function of frames (T, V, U) -> volumes (T, Z, Y, X) on a `Labelled` scene.

    photons: light of the frame, mean of its brightest tenth. nrmse, correlation: of the volume of a noisy
    frame. gain, crosstalk_mean, crosstalk_worst: each neuron brighter by a half, without noise, read out by
    the means over the true masks (`crosstalk`). cpu_s: of one frame alone.
    """
    frame, volume, scale = at_light(scene, photons)

    def read(frames):
        return mask_means(reconstruct(torch.from_numpy(frames)), scene.fills).numpy()

    footprints = (scale * scene.footprints).numpy()
    response = responses(read, frame.numpy(), footprints, np.ones(len(scene)), BRIGHTER, label="crosstalk")
    found = crosstalk(response, scene.centre_um.numpy(), BRIGHTER)
    noisy = add_noise(frame, np.random.default_rng([seed, 11]))[None]
    start = time.process_time()
    estimate = reconstruct(noisy)[0].numpy()
    seconds = time.process_time() - start
    return {
        "crosstalk_mean": found["crosstalk_mean"][0],
        "crosstalk_worst": found["crosstalk_worst_median"][0],
        "gain": found["gain"][0],
        "gain_spread": found["gain"][2],
        "nrmse": nrmse(estimate, volume),
        "correlation": correlation(estimate, volume),
        "cpu_s": seconds,
    }
