"""Train the denoisers that come with the package, for hours; killed, it goes on where it was.

The 400 grey images of 180 x 180 pixels that DnCNN and WINNet were trained on, less 20 that are held out
for the curves; noise of sigma 0 to 55 of 255. All else stands in RECIPES and in the settings' defaults.
`--n-step` may be raised later: the training goes on from the end of its flat stage.

python -m benchmarks.train_denoisers unet_gray --folder FOLDER [--n-step N]      needs INVERSEFLOW_DATA
"""

import argparse
import logging
import os
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import torch  # noqa: E402

from inverseflow.core.compute import compute  # noqa: E402
from inverseflow.core.provenance import code_digest  # noqa: E402
from inverseflow.core.stores import key_of  # noqa: E402
from inverseflow.restoration.patches import Squares, make_squares  # noqa: E402
from inverseflow.restoration.settings import DataSettings, TrainSettings  # noqa: E402
from inverseflow.restoration.train import train  # noqa: E402

DATA = DataSettings(images="${INVERSEFLOW_DATA}/images/train400")
RECIPES = {
    "unet_gray": TrainSettings(weights="train", n_step=40_000, width=(32, 32, 32), depth=(3, 1, 1)),
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
    card = train(
        Squares(store), settings, options.folder / f"{options.name}.safetensors", code=note.read_text()
    )
    print({k: v[-1] for k, v in card["curves"].items()}, "CPU hours", card["cpu_hours"])


if __name__ == "__main__":
    main()
