"""Train diffusion priors of 32 x 32 pixels, for hours; killed, it goes on where it was.

`faces32` learns from grey faces of research data (see benchmarks/faces.py) and stays in FOLDER: it is never
shipped. `photographs32` learns from colour squares of the freely licensed photographs that scikit-image
brings, less the cat (chelsea), which it is judged by. `--ship` puts its weights into resources/weights, with
figures in the card: the error of x_0 on squares of the cat, beside that of a Gaussian fitted to the squares
of training.
`--n-step` may be raised later: the training goes on from the end of its flat stage.

python -m benchmarks.train_prior faces32 --folder FOLDER [--n-step N]      needs INVERSEFLOW_DATA
python -m benchmarks.train_prior photographs32 --folder FOLDER [--n-step N]
python -m benchmarks.train_prior photographs32 --folder FOLDER --ship
"""

import argparse
import logging
import os
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
import torch  # noqa: E402
import zarr  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from benchmarks.faces import faces  # noqa: E402
from inverseflow.core.compute import compute  # noqa: E402
from inverseflow.core.long_training import Clock  # noqa: E402
from inverseflow.core.provenance import code_digest  # noqa: E402
from inverseflow.core.stores import key_of, new_array, replacing  # noqa: E402
from inverseflow.core.weights import SHIPPED, read_card, save_weights  # noqa: E402
from inverseflow.restoration.images import chosen_files, read_image, resized  # noqa: E402
from inverseflow.restoration.patches import WHITE, Squares, make_squares, squares_of  # noqa: E402
from inverseflow.restoration.prior_settings import PriorSettings, PriorTrainSettings  # noqa: E402
from inverseflow.restoration.priors import GaussianPrior, denoising_error, load_prior  # noqa: E402
from inverseflow.restoration.train_prior import train_prior  # noqa: E402

PHOTOGRAPHS = PriorSettings(
    images="shipped",
    leave_out=("chelsea", "hubble_deep_field", "ihc"),  # the last two: stars, a stained tissue
    n_held_out=1,
    scales=(0.5, 0.35, 0.25, 0.18, 0.13),
)
TEST_TIMES = (50, 100, 200, 400)
RECIPES = {
    "faces32": PriorTrainSettings(weights="train", n_step=8500, settle=0.4, width=(96, 192), n_block=(2, 3)),
    "photographs32": PriorTrainSettings(
        weights="train", n_step=2000, width=(48, 80), n_block=(1, 2), n_head=0
    ),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(RECIPES))
    parser.add_argument("--folder", type=Path, required=True, help="squares, checkpoints and weights")
    parser.add_argument("--n-step", type=int, help="steps; the recipe's when left out")
    parser.add_argument("--ship", action="store_true", help="no training: figures, resources/weights")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    store, weights = (options.folder / f"{options.name}.{ending}" for ending in ("zarr", "safetensors"))
    if options.ship:
        if options.name != "photographs32":
            parser.error(f"{options.name} learned from research data, which may not be shipped")
        return ship(weights, Squares(store), SHIPPED / weights.name)
    options.folder.mkdir(parents=True, exist_ok=True)
    if not store.exists():
        write_faces(store) if options.name == "faces32" else write_photographs(store)
    settings = RECIPES[options.name]
    if options.n_step:
        settings = settings.model_copy(update={"n_step": options.n_step})
    note = options.folder / f"{options.name}.code"  # of the start: edits must not end a training of days
    if not note.exists():
        note.write_text(code_digest(__file__))
    train_prior(Squares(store), settings, weights, code=note.read_text(), clock=Clock())


def write_photographs(store):
    with compute("threads", threads=1) as engine:
        make_squares(PHOTOGRAPHS, store, engine, key_of(PHOTOGRAPHS.model_dump(mode="json")))


def write_faces(store):
    """Faces in a store as `patches.make_squares` writes it."""
    with replacing(store) as temporary:
        group = zarr.open_group(temporary, mode="w")
        for name, split in (("train", "train"), ("held_out", "validation")):
            squares = (faces(split) * WHITE + 0.5).astype(np.uint16)
            dims, chunks = ("square", "channel", "y", "x"), (256, *squares.shape[1:])
            new_array(group, name, dims, squares.shape, chunks, "uint16")[:] = squares


def cat():
    """Squares of the photograph that photographs32 has not seen, float32 (n, 3, 32, 32) on 0..1."""
    image = read_image(chosen_files("shipped", ("chelsea",))["chelsea"], colour=True)
    found = [squares_of(resized(image, scale), 32, overlap=1) for scale in (0.5, 0.25, 0.18)]
    return np.concatenate(found).astype(np.float32) / WHITE


def ship(source, squares, target):
    """Copy weights with a card that has their figures on squares of the cat."""
    card = read_card(source)
    card["data"] |= {"images": "photographs of scikit-image", "leave_out": list(PHOTOGRAPHS.leave_out)}
    gaussian = GaussianPrior.fitted(torch.from_numpy(squares.train.astype(np.float32) / WHITE))
    card["test"] = {
        name: {str(t): float(f"{e:.4g}") for t, e in denoising_error(prior, cat(), TEST_TIMES).items()}
        for name, prior in (("network", load_prior(source)), ("gaussian", gaussian))
    }
    network, values = card.pop("network"), load_file(source)
    save_weights(
        target, values, network, {k: v for k, v in card.items() if k not in ("sha256", "parameters")}
    )
    print(card["test"])


if __name__ == "__main__":
    main()
