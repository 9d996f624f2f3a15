"""A radiograph of 8,192 x 8,192 pixels through the unfolded network: memory, time, tiles against one piece.

python -m benchmarks.xray_large [--size 8192] [--folder FOLDER]

The mosaic is synthetic: a virtual painting of 1,024 x 1,024 pixels, mirrored again and again, written as
16-bit and 8-bit BigTIFF and calibrated from there. The network is trained on one square of 512. Every stage
runs in a process of its own with one thread; peak memory is the resident set of that process.
"""

import argparse
import tempfile
from pathlib import Path

import pandas as pd

from benchmarks.core import measured, write_results

PAINT = """
import json, sys
import numpy as np, tifffile
from inverseflow.xray.painting import TUNING, virtual_painting
folder, size = sys.argv[1], int(sys.argv[2])
settings = TUNING["cat_on_portrait"]
painting = virtual_painting(settings.model_copy(update={"n_row": 1024, "n_col": 1024}))
radiograph = painting["radiograph"].values
rgb = np.round(255 * np.moveaxis(painting["rgb"].values, 0, -1)).astype(np.uint8)

def rows(image, size):
    n = len(image)
    for row in range(0, size, 256):
        at = np.arange(row, min(row + 256, size)) % (2 * n)
        across = np.arange(size) % (2 * n)
        at, across = (np.minimum(i, 2 * n - 1 - i) for i in (at, across))
        yield image[at][:, across]

for image, name in ((radiograph, "radiograph"), (rgb, "rgb")):
    shape = (size, size, *image.shape[2:])
    with tifffile.TiffWriter(f"{folder}/{name}_{size}.tif", bigtiff=True) as file:
        file.write(rows(image, size), shape=shape, dtype=image.dtype, rowsperstrip=256,
                   photometric="rgb" if image.ndim == 3 else "minisblack")
print(json.dumps({}))
"""

CALIBRATE = """
import json, sys
from inverseflow.core.compute import compute
from inverseflow.xray.calibrate import calibrate
from inverseflow.xray.settings import CalibrateSettings
folder, size = sys.argv[1], int(sys.argv[2])
images = {"path": f"{folder}/radiograph_{size}.tif", "rgb": f"{folder}/rgb_{size}.tif",
          "polarity": "transmission"}
with compute("threads") as engine:
    settings = CalibrateSettings(registration="none")
    calibrate(images, settings, f"{folder}/calibrated_{size}.zarr", engine, "key")
print(json.dumps({}))
"""

TRAIN = """
import json, sys
import torch
from inverseflow.xray.settings import TrainSettings
from inverseflow.xray.train import train
torch.set_num_threads(1)
folder, size = sys.argv[1], int(sys.argv[2])
train(f"{folder}/calibrated_{size}.zarr", TrainSettings(), f"{folder}/network.safetensors")
print(json.dumps({}))
"""

INFER = """
import json, sys, time
import torch
from inverseflow.core.compute import compute
from inverseflow.xray.infer import infer
from inverseflow.xray.methods import Unfolded
folder, size, tile = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
store, network = f"{folder}/layers_{size}_{tile}.zarr", f"{folder}/network.safetensors"
images = f"{folder}/calibrated_{size}.zarr"
start = time.process_time()
with compute("threads") as engine:
    found = infer(images, Unfolded(network), tile, store, engine, "key")
print(json.dumps(found | {"infer_cpu_s": time.process_time() - start}))
"""

NETWORK = """
import json, sys, time
import torch
from inverseflow.xray.train import load_network
torch.set_num_threads(1)
network = load_network(f"{sys.argv[1]}/network.safetensors")
x, first, rgb = torch.rand(1, 1, 868, 868), torch.rand(1, 1, 868, 868), torch.rand(1, 3, 868, 868)
seconds = []
with torch.inference_mode():
    for _ in range(3):
        start = time.process_time()
        network.layers_of(x, rgb, guide=0.5 * first)
        seconds.append(time.process_time() - start)
    a = torch.rand(64, 25)
    b = torch.rand(25, 200_000)
    start = time.process_time()
    for _ in range(20):
        a @ b
    product = 20 * 2 * a.numel() * b.shape[1] / (time.process_time() - start)
print(json.dumps({"cpu_s": min(seconds), "product": product, "field": network.receptive_field}))
"""


def flops_per_pixel(n_layer=5, n_filter=64, size=5):
    """Multiplications and additions of the code steps: per layer and side one analysis and two syntheses, and
    in the first layer one synthesis, because codes begin with zeros."""
    return 2 * (3 * n_layer - 1) * 2 * n_filter * size**2


def difference(folder, size, tiles):
    """Largest difference of the layers between two tile sizes, over the range of the layer."""
    import numpy as np
    import xarray as xr

    a, b = (xr.open_zarr(f"{folder}/layers_{size}_{tile}.zarr", consolidated=False) for tile in tiles)
    return max(float(np.abs(a[n] - b[n]).max() / np.abs(a[n]).max()) for n in ("x1", "x2"))


def run(folder, size):
    for n in (512, size):
        measured(PAINT, folder, n)
        calibrated = measured(CALIBRATE, folder, n)
        if n == 512:
            trained = measured(TRAIN, folder, n)
    rows = []
    for tile in (512, 192):
        measured(INFER, folder, 512, tile)
    seams = difference(folder, 512, (512, 192))
    network = measured(NETWORK, folder)
    flops, tile = flops_per_pixel() * 868**2, "one tile of 868 x 868"
    achieved, product = flops / network["cpu_s"] / 1e9, network["product"] / 1e9
    rows += [
        ("512 x 512", "unfolded", "tiles of 192 against one piece, relative", seams, "1", 512**2),
        (tile, "unfolded", "operations of the code steps", flops / 1e9, "GFLOP", 1),
        (tile, "unfolded", "operations per CPU second", achieved, "GFLOP/s", 3),
        ("64 x 25 times 25 x 200,000", "torch product", "operations per CPU second", product, "GFLOP/s", 20),
        ("512 x 512", "train", "CPU time", trained["cpu_s"], "s", 1),
        ("512 x 512", "train", "peak memory", trained["peak_rss_mb"], "MB", 1),
    ]
    large = measured(INFER, folder, size, 640)
    case, megapixels = f"{size:,} x {size:,}, 16 bit", size**2 / 1e6
    rows += [
        (case, "calibrate", "peak memory", calibrated["peak_rss_mb"], "MB", 1),
        (case, "unfolded", "peak memory", large["peak_rss_mb"], "MB", 1),
        (case, "unfolded", "CPU time per megapixel", large["infer_cpu_s"] / megapixels, "s", 1),
        (case, "unfolded", "overlap, pixels on each side", network["field"], "px", 1),
    ]
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=8192, help="pixels across the mosaic")
    parser.add_argument("--folder", help="where images are written; 8,192 pixels need 4 GB")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rows = run(str(Path(folder)), options.size)
    table = pd.DataFrame(rows, columns=["case", "method", "metric", "value", "unit", "n"])
    write_results("xray_large", table)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
