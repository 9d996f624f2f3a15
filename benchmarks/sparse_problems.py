"""Photographs to code, and runs of sporco in an environment of its own, for `benchmarks.sparse_coding`."""

import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch

THRESHOLD = 0.05
TRAIN = ("astronaut", "coffee", "chelsea", "rocket")
UNSEEN = ("camera", "immunohistochemistry")


def photograph(name, size, strength=5.0):
    """High frequencies of one of skimage's photographs, square, grey, 0 to 1: (size, size), periodic."""
    from skimage import color, data, transform

    image = getattr(data, name)()
    image = image / 255.0 if image.ndim == 2 else color.rgb2gray(image)
    image = transform.resize(image[: min(image.shape), : min(image.shape)], (size, size), anti_aliasing=True)
    laplacian = np.add.outer(*(2 - 2 * np.cos(2 * np.pi * np.fft.fftfreq(size)) for _ in "yx"))
    return image - np.fft.ifft2(np.fft.fft2(image) / (1 + strength * laplacian)).real


def stack(names, size):
    images = np.array([photograph(name, size) for name in names])
    return torch.from_numpy(images.astype(np.float32))[:, None]


def silent(items, *_):
    return items


def sporco(task, arrays, settings, python, **more):
    """What benchmarks/sporco_codes.py finds: {name of settings: {"iterations", "seconds", ...}}."""
    with tempfile.TemporaryDirectory() as folder:
        data, result = str(Path(folder, "data.npz")), str(Path(folder, "result.npz"))
        np.savez(data, **arrays)
        job = {"task": task, "data": data, "result": result, "threshold": THRESHOLD, "settings": settings}
        job = {"threads": 1, "stop_below": -1.0, **job, **more}
        Path(folder, "job.json").write_text(json.dumps(job))
        program = Path(__file__).with_name("sporco_codes.py")
        done = subprocess.run(
            [python, str(program), str(Path(folder, "job.json"))], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"sporco failed:\n{done.stderr[-2000:]}")
        with np.load(result) as stored:
            found = dict(stored)
    return {
        name: {key.rsplit("_", 1)[0]: value for key, value in found.items() if key.endswith(f"_{i}")}
        for i, name in enumerate(settings)
    }
