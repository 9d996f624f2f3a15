"""Train diffusion priors of 32 x 32 pixels, for hours; killed, it goes on where it was.

`faces32` learns from grey faces of research data (see benchmarks/faces.py) and stays in FOLDER: it is never
shipped. `photographs32` learns from colour squares of the freely licensed photographs that scikit-image
brings; `--ship` puts its finished weights into resources/weights, with figures in the card: the error of x_0
on held-out squares at several times, beside that of a Gaussian fitted to the same training squares.
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

from benchmarks.faces import faces  # noqa: E402
from inverseflow.core.compute import compute  # noqa: E402
from inverseflow.core.long_training import Clock  # noqa: E402
from inverseflow.core.provenance import code_digest  # noqa: E402
from inverseflow.core.stores import key_of, new_array, replacing  # noqa: E402
from inverseflow.restoration.patches import WHITE, Squares, make_squares  # noqa: E402
from inverseflow.restoration.prior_settings import PriorSettings, PriorTrainSettings  # noqa: E402
from inverseflow.restoration.train_prior import train_prior  # noqa: E402

PHOTOGRAPHS = PriorSettings(images="shipped")
RECIPES = {
    "faces32": PriorTrainSettings(
        weights="train", n_step=12_000, settle=0.4, width=(96, 192), n_block=(2, 3)
    ),
    "photographs32": PriorTrainSettings(
        weights="train", n_step=12_000, width=(64, 96), n_block=(1, 2), n_head=0
    ),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(RECIPES))
    parser.add_argument("--folder", type=Path, required=True, help="squares, checkpoints and weights")
    parser.add_argument("--n-step", type=int, help="steps; the recipe's when left out")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    store = options.folder / f"{options.name}.zarr"
    if not store.exists():
        write_faces(store) if options.name == "faces32" else write_photographs(store)
    settings = RECIPES[options.name]
    if options.n_step:
        settings = settings.model_copy(update={"n_step": options.n_step})
    note = options.folder / f"{options.name}.code"  # of the start: edits must not end a training of days
    if not note.exists():
        note.write_text(code_digest(__file__))
    weights = options.folder / f"{options.name}.safetensors"
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


if __name__ == "__main__":
    main()
