"""Project with pyolaf's own functions. A program for its environment: it imports nothing of this project.

    python pyolaf_projection.py job.json

job.json: {"pixels", "voxels" (per lenslet), "lenslets", "depths", "patterns": .npz, "volume": .npy
(z, y, x), "frame": .npy (v, u), "repeats", "iterations", "result": .npz}. patterns holds h0, h1 ...: per
depth (P, P, k, k), what each voxel of a lenslet draws, from the middle of that lenslet. result: forward,
back, rl (arrays), forward_s, back_s (CPU seconds of each repeat), rl_s (of all iterations), peak_rss_mb.

The grid is pyolaf's own (LFM_computeGeometryParameters); its filters are filled with our patterns, for every
phase, and handed over dense, so that unpacking them costs pyolaf nothing. pyolaf numbers voxels one further
than we do when it projects forward, and loses the last lenslet's last pixels when it projects back.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from pyolaf import geometry, project


class Dense(np.ndarray):
    """What pyolaf takes for a sparse matrix."""

    def todense(self):
        return self


def grid(job):
    """Lens centres and resolution, by pyolaf."""
    n, size = job["pixels"], job["pixels"] * job["lenslets"]
    camera = {
        "gridType": "reg", "focus": "single", "plenoptic": 1, "uLensMask": 1, "M": 25.0, "NA": 1.0, "n": 1.33,
        "ftl": 180000.0, "WaveLength": 0.52, "lensPitch": 125.0, "pixelPitch": 125.0 / n, "fm": 1562.5,
        "tube2mla": 0, "mla2sensor": 0,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "camera.yaml")
        path.write_text(yaml.safe_dump(camera))
        camera = geometry.LFM_setCameraParams(str(path), n)
    centres, resolution, *_ = geometry.LFM_computeGeometryParameters(
        camera, np.array([]), [0, job["depths"] - 1], 1, job["voxels"], False, [size, size]
    )
    return centres, resolution


def filters(job, centres, resolution):
    """Forward and back filters of every phase, (P, P, z) and (N, N, z), each an odd square."""
    n, p, depths = job["pixels"], job["voxels"], job["depths"]
    sizes = np.array([n * job["lenslets"]] * 2), np.array([p * job["lenslets"]] * 2)
    texture, image = project.get_indices_forward(centres, resolution, *sizes)
    voxel_to_pixel = []
    for a in range(p):
        # pyolaf's voxel v is our v - 1
        lenslet = (int(texture[a, a][0][0]) - 1) // p
        voxel_to_pixel.append(int(image[a, a][0][0]) - lenslet * n)
    texture, image = project.get_indices_backward(centres, resolution, *sizes)
    pixel_to_voxel = [int(texture[a, a][0][0]) - int(image[a, a][0][0]) // n * p for a in range(n)]
    with np.load(job["patterns"]) as stored:
        patterns = [stored[f"h{z}"] for z in range(depths)]
    radius = [(h.shape[-1] // n - 1) // 2 for h in patterns]
    half = (max(radius) + 1) * n - 1
    forward = np.empty((p, p, depths), object)
    for z, (h, r) in enumerate(zip(patterns, radius)):
        for a in range(p):
            for b in range(p):
                block = np.zeros((2 * half + 1,) * 2, np.float32)
                top, left = half - r * n - voxel_to_pixel[a], half - r * n - voxel_to_pixel[b]
                block[top : top + len(h[a, b]), left : left + len(h[a, b])] = h[a, b]
                forward[a, b, z] = block.view(Dense)
    half = (max(radius) + 2) * p - 1
    back = np.empty((n, n, depths), object)
    for z, (h, r) in enumerate(zip(patterns, radius)):
        taps = 2 * r + 1
        turned = h.reshape(p, p, taps, n, taps, n)[:, :, ::-1, :, ::-1]  # the voxel is l lenslets before
        for a in range(n):
            for b in range(n):
                block = np.zeros((2 * half + 1,) * 2, np.float32)
                top, left = half - r * p - pixel_to_voxel[a], half - r * p - pixel_to_voxel[b]
                what = turned[:, :, :, a, :, b].transpose(2, 0, 3, 1).reshape(taps * p, taps * p)
                block[top : top + taps * p, left : left + taps * p] = what
                back[a, b, z] = block.view(Dense)
    return forward, back


def main():
    job = json.loads(Path(sys.argv[1]).read_text())
    centres, resolution = grid(job)
    forward, back = filters(job, centres, resolution)
    volume, frame = np.load(job["volume"]).transpose(1, 2, 0), np.load(job["frame"])
    size, texture = np.array(frame.shape), np.array(volume.shape[:2])

    def timed(function, *arguments):
        start = time.process_time()
        result = function(*arguments)
        return result, time.process_time() - start

    def go_forward(x):
        return project.LFM_forwardProject(forward, x, centres, resolution, size, "full")

    def go_back(y):
        return project.LFM_backwardProject(back, y, centres, resolution, texture, "full")

    def deconvolve(y):
        x = np.ones_like(volume)
        for _ in range(job["iterations"]):
            x = x * go_back(y / np.maximum(go_forward(x), 1e-6))
        return x

    shifted = np.zeros_like(volume)
    shifted[1:, 1:] = volume[:-1, :-1]
    runs = [timed(go_forward, shifted) for _ in range(job["repeats"])]
    returns = [timed(go_back, frame) for _ in range(job["repeats"])]
    rl, rl_s = timed(deconvolve, frame) if job["iterations"] else (np.zeros(1), np.nan)
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
    np.savez(
        job["result"],
        forward=runs[0][0],
        back=returns[0][0].transpose(2, 0, 1),
        rl=rl,
        forward_s=[s for _, s in runs],
        back_s=[s for _, s in returns],
        rl_s=rl_s,
        peak_rss_mb=peak,
    )


if __name__ == "__main__":
    main()
