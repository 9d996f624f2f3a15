"""Train the denoisers that come with the package, for hours; killed, it goes on where it was.

The 400 grey images of 180 x 180 pixels that DnCNN and WINNet were trained on, less 20 that are held out for
the curves; noise of sigma 0 to 55 of 255. All else stands in RECIPES and in the settings' defaults.
`--n-step` may be raised later: the training goes on from the end of its flat stage. `--ship` puts finished
weights into resources/weights, with figures in the card: PSNR on Set12, BSD68 and the middle 256 x 256 pixels
of photographs that scikit-image brings, the same of shorter trainings that were shipped before, and the curve
of the flat stage, where that went on after the weights were made.

python -m benchmarks.train_denoisers unet_gray --folder FOLDER [--n-step N]      needs INVERSEFLOW_DATA
python -m benchmarks.train_denoisers unet_gray --folder FOLDER --ship
"""

import argparse
import logging
import os
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from inverseflow.core.compute import compute  # noqa: E402
from inverseflow.core.long_training import Clock  # noqa: E402
from inverseflow.core.provenance import code_digest  # noqa: E402
from inverseflow.core.stores import key_of  # noqa: E402
from inverseflow.core.weights import SHIPPED, read_card, save_weights  # noqa: E402
from inverseflow.restoration.denoisers import load_denoiser  # noqa: E402
from inverseflow.restoration.images import middle, read_set  # noqa: E402
from inverseflow.restoration.measure import denoising_psnr  # noqa: E402
from inverseflow.restoration.patches import Squares, make_squares  # noqa: E402
from inverseflow.restoration.settings import DataSettings, TrainSettings  # noqa: E402
from inverseflow.restoration.train import train  # noqa: E402

DATA = DataSettings(images="${INVERSEFLOW_DATA}/images/train400")
RECIPES = {
    "unet_gray": TrainSettings(
        weights="train", n_step=30_000, settle=0.5, width=(32, 32, 32), depth=(3, 1, 1)
    ),
}
TEST_LEVELS = (15, 25, 50)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(RECIPES))
    parser.add_argument("--folder", type=Path, required=True, help="squares, checkpoints and weights")
    parser.add_argument("--n-step", type=int, help="steps; the recipe's when left out")
    parser.add_argument("--ship", action="store_true", help="no training: figures, resources/weights")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    weights = options.folder / f"{options.name}.safetensors"
    if options.ship:
        return ship(weights, SHIPPED / weights.name)
    options.folder.mkdir(parents=True, exist_ok=True)
    store = options.folder / "squares.zarr"
    if not store.exists():
        with compute("threads", threads=1) as engine:
            make_squares(DATA, store, engine, key_of(DATA.model_dump(mode="json")))
    settings = RECIPES[options.name]
    if options.n_step:
        settings = settings.model_copy(update={"n_step": options.n_step})
    note = options.folder / f"{options.name}.code"  # of the start: edits must not end a training of days
    if not note.exists():
        note.write_text(code_digest(__file__))
    train(Squares(store), settings, weights, code=note.read_text(), clock=Clock())


def ship(source, target):
    """Copy weights with a card that has their figures on the test images."""
    card = read_card(source)
    card["data"] |= {"images": "train400, the training images of DnCNN (BSDS), 20 of them held out"}
    sets = {n: read_set(f"${{INVERSEFLOW_DATA}}/images/{n}", colour=False) for n in ("set12", "bsd68")}
    sets["shipped"] = {n: middle(image, 256) for n, image in read_set("shipped", colour=False).items()}
    network = load_denoiser(source)
    card["test"] = {
        name: {
            str(s): round(float(np.mean(denoising_psnr(network, images.values(), s, f"{name} {s}"))), 3)
            for s in TEST_LEVELS
        }
        for name, images in sets.items()
    }
    if target.exists() and (known := shorter(read_card(target), card["settings"]["n_step"])):
        card["shorter"] = known
    if flat := flat_stage(source.with_name(f"{source.name}.checkpoint"), card["settings"]):
        card["flat_stage"] = flat
    network, values = card.pop("network"), load_file(source)
    save_weights(
        target, values, network, {k: v for k, v in card.items() if k not in ("sha256", "parameters")}
    )
    print(card["test"])


def shorter(former, n_step):
    """Figures and curves of trainings of fewer steps, from the card of the weights that were there before."""
    steps = former["settings"]["n_step"]
    curves = curve_of(former["curves"])
    known = {"n_step": steps, "curves": curves} | {k: former[k] for k in ("cpu_hours", "test")}
    return former.get("shorter", []) + ([known] if steps < n_step else [])


def flat_stage(checkpoint, settings):
    """Curve of a flat stage that went on past that of the weights, {"step": [...], ...}, or None."""
    if not checkpoint.exists():
        return None
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    if content["step"] <= settings["n_step"] * (1 - settings["settle"]):
        return None
    rows = [row for row in content["curves"] if row.get("cpu_h")]
    names = ("step", "cpu_h", *(f"held_out_{s}" for s in TEST_LEVELS))
    return {name: [float(f"{row[name]:.5g}") for row in rows] for name in names}


def curve_of(curves):
    """Of a card's curves, the rows with held-out images: {"cpu_h": [...], "held_out_15": [...], ...}."""
    rows = [i for i, hours in enumerate(curves["cpu_h"]) if hours is not None]
    return {k: [curves[k][i] for i in rows] for k in curves if k == "cpu_h" or k.startswith("held_out")}


if __name__ == "__main__":
    main()
