"""Train the noise estimator that comes with the package, in some minutes; killed, it goes on where it was.

The 400 grey images of 180 x 180 pixels that DnCNN and WINNet were trained on, every 16th of them held out;
noise of sigma 0 to 55 of 255. The card has bias and spread of sigma on Set12, BSD68 and on the middle
256 x 256 pixels of photographs that scikit-image brings.

python -m benchmarks.train_nenet --folder FOLDER          needs INVERSEFLOW_DATA
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from benchmarks.winnet import images_of, noise_errors
from inverseflow.core.provenance import code_digest
from inverseflow.core.stores import key_of
from inverseflow.core.weights import SHIPPED, save_weights
from inverseflow.restoration.images import middle, read_set
from inverseflow.restoration.nenet import FineNENet, train_nenet

SETTINGS = {"n_step": 1000, "batch": 8, "crop": 160, "rate": 5e-3, "seed": 0}
LEVELS = (5, 15, 25, 50, 85)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where the checkpoint is kept")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    images = [x[0, 0] for i, x in enumerate(images_of("train400")) if i % 16]
    torch.manual_seed(SETTINGS["seed"])
    trained, code = FineNENet(stride=2), code_digest(__file__)  # a quarter of the patches will do
    key = key_of(SETTINGS, code)
    curves = train_nenet(trained, images, checkpoint=folder / "nenet.checkpoint", key=key, **SETTINGS)
    network = FineNENet().eval().requires_grad_(False)
    network.load_state_dict(trained.state_dict())
    card = {
        "data": {"images": "train400, the training images of DnCNN (BSDS), every 16th of them held out"},
        "settings": SETTINGS,
        "seed": SETTINGS["seed"],
        "code": code,
        "curves": curves.thinned(100),
        "cpu_hours": round(curves.column("cpu_s")[1].sum() / 3600, 3),
        "test": figures(network),
    }
    save_weights(SHIPPED / "nenet.safetensors", network.state_dict(), network.config, card)
    print(card["test"])


@torch.no_grad()
def figures(network):
    """{set: {sigma: [bias, spread]}} in units of 1/255."""
    shipped = [torch.from_numpy(middle(x, 256))[None] for x in read_set("shipped", colour=False).values()]
    held_out = images_of("train400")[::16]
    sets = {
        "set12": images_of("set12"),
        "bsd68": images_of("bsd68"),
        "held_out": held_out,
        "shipped": shipped,
    }
    found = {}
    for name, images in sets.items():
        errors = {s: noise_errors(network, images, s) for s in LEVELS}
        found[name] = {str(s): [round(float(f(e)), 3) for f in (np.mean, np.std)] for s, e in errors.items()}
    return found


if __name__ == "__main__":
    main()
