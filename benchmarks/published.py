"""The published weights of WINNet and NENet in our networks: a measuring rod, read from the data folder.

`${INVERSEFLOW_DATA}/images/weights/*.npz` hold the arrays that the authors released, under their names.
"""

import os
import re
from pathlib import Path

import numpy as np
import torch

from inverseflow.restoration.nenet import NENet
from inverseflow.restoration.winnet import WINNet

# authors' names -> ours
RENAMES = (
    (r"^innnet\.(\d+)\.net\.(\d+)\.", r"lifting.levels.\1.steps.\2."),
    (r"\.predictor\.", ".predict."),
    (r"\.updator\.", ".update."),
    (r"\.net\.0\.conv\.", ".first."),
    (r"\.net\.0\.soft\.", ".threshold."),
    (r"\.convOut\.", ".last."),
    (r"\.net\.(\d+)\.(conv[12])\.conv1\.", lambda m: f".blocks.{int(m[1]) - 1}.{m[2]}.each."),
    (r"\.net\.(\d+)\.(conv[12])\.conv2\.", lambda m: f".blocks.{int(m[1]) - 1}.{m[2]}.mix."),
    (r"\.net\.(\d+)\.soft1\.", lambda m: f".blocks.{int(m[1]) - 1}.first_threshold."),
    (r"\.net\.(\d+)\.soft2\.", lambda m: f".blocks.{int(m[1]) - 1}.second_threshold."),
    (r"\.conv1\.", ".first."),
    (r"\.conv2\.", ".second."),
    (r"^ddnnet\.(\d+)\.A\.", r"denoisers.\1.analysis."),
    (r"^ddnnet\.(\d+)\.S\.", r"denoisers.\1.synthesis."),
    (r"^ddnnet\.(\d+)\.net\.(\d+)\.", r"denoisers.\1.thresholds.\2."),
    (r"\.thre$", ".theta"),
)


def weights_folder(data=None):
    """Folder of the published weights; raises FileNotFoundError that names INVERSEFLOW_DATA."""
    folder = Path(data or os.environ.get("INVERSEFLOW_DATA") or "no-data") / "images" / "weights"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no {folder}: set INVERSEFLOW_DATA to the folder that holds images/weights with the published "
            "weights (*.npz)"
        )
    return folder


def renamed(name):
    for pattern, new in RENAMES:
        name = re.sub(pattern, new, name)
    return name


def published_winnet(name, data=None, border="published"):
    """The published WINNet of a name in our class, ready to denoise.

    name : "lvl1_sigma15", "lvl1_sigma25", "lvl1_sigma50", "lvl2_sigma25" or "lvl1_blind_0_55"
    border : "published" reproduces the authors' forward, "exact" uses their weights between exact splits
    """
    with np.load(weights_folder(data) / f"winnet_{name}.npz") as file:
        values = {renamed(k): torch.from_numpy(file[k]) for k in file.files}
    level = int(re.match(r"lvl(\d)", name)[1])
    trained = re.search(r"sigma(\d+)", name)
    network = WINNet(level, sigma_trained=int(trained[1]) / 255 if trained else 0.0, border=border)
    network.load_state_dict(values)
    return network.eval()


def published_nenet(data=None):
    """The published NENet in our class."""
    with np.load(weights_folder(data) / "nenet.npz") as file:
        values = {f"layers.{i}.weight": torch.from_numpy(file[f"net.{2 * i}.weight"]) for i in range(7)}
    network = NENet()
    network.load_state_dict(values)
    return network.eval()
