"""Networks that learn degradations of faces from pairs alone: how well they imitate them on unseen faces.

Grey faces of 32 x 32 pixels (see benchmarks/faces.py), 9,500 pairs of training faces, tested on 500 faces of
other people. RMSE of c - y, y without noise. "linear map": the best affine map fitted to the same pairs,
all that a linear operator can be. "smooth": the known degradation without its roundings (of 4 bits; of JPEG's
coefficients, which is blur alone), what a method would use that needs its gradient. The known degradation
itself has RMSE 0: it makes y. "inverse": RMSE of f^-1(y, d) - x over that of c - y, how much the inverse
enlarges what does not fit; "round trip": largest error of f^-1(f(x)), float32. Weights stay in FOLDER.

python -m benchmarks.train_inn --folder FOLDER [--only NAME ...]      needs INVERSEFLOW_DATA; 40 minutes
"""

import argparse
import logging
import os
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import pandas as pd  # noqa: E402
import torch  # noqa: E402

from benchmarks.core import write_results  # noqa: E402
from benchmarks.faces import faces  # noqa: E402
from inverseflow.core.progress import progress  # noqa: E402
from inverseflow.core.provenance import code_digest  # noqa: E402
from inverseflow.restoration.degradation_chain import (  # noqa: E402
    BlockMean,
    Gamma,
    Jpeg,
    Quantise,
    Saturate,
    chain,
)
from inverseflow.restoration.degradation_inn import load_inn  # noqa: E402
from inverseflow.restoration.degradations import Blur  # noqa: E402
from inverseflow.restoration.inn_settings import InnSettings  # noqa: E402
from inverseflow.restoration.kernels import gaussian_kernel  # noqa: E402
from inverseflow.restoration.pairs import Degraded  # noqa: E402
from inverseflow.restoration.train_inn import misfit, train_inn  # noqa: E402

SHAPE = (1, 32, 32)
MEAN, BLUR = BlockMean(4, SHAPE), Blur(gaussian_kernel(1.0, 7), SHAPE)
DEGRADATIONS = {
    "average": MEAN,
    "average, gamma .5, 4 bits": chain(MEAN, Gamma(0.5), Quantise(4)),
    "blur, JPEG 10": chain(BLUR, Jpeg(10)),
    "average, saturation": chain(MEAN, Saturate(2.0)),
}
SMOOTH = {"average, gamma .5, 4 bits": chain(MEAN, Gamma(0.5)), "blur, JPEG 10": BLUR}
SMALL = InnSettings(n_step=1500)
LARGE = InnSettings(n_level=0, n_step=1000, width=(16, 32, 48, 64))
RECIPES = {name: LARGE if "JPEG" in name else SMALL for name in DEGRADATIONS}


def file_of(folder, name):
    """Where the weights of a degradation lie."""
    words = "".join(c if c.isalnum() else " " for c in name).split()
    return Path(folder) / f"inn_{'_'.join(words)}.safetensors"


def trained(folder, name):
    """The network of a degradation, trained first when its weights are missing or half trained."""
    path, degrade = file_of(folder, name), DEGRADATIONS[name]
    if not path.exists():
        images = torch.cat([torch.from_numpy(faces(s)) for s in ("train", "validation")])
        pairs = Degraded(images, lambda x, rng: degrade(x), name, n_held_out=len(faces("validation")))
        note = path.with_suffix(".code")  # of the start: edits must not end a training
        if not note.exists():
            note.write_text(code_digest(__file__))
        train_inn(pairs, RECIPES[name], path, code=note.read_text())
    return load_inn(path)


class LinearMap:
    """The affine map of images that is best on pairs x (n, ...), y (n, ...) in the mean square."""

    def __init__(self, x, y):
        x, y = self._rows(x), y.double()
        gram = x.mT @ x
        ridge = 1e-8 * gram.trace() / len(gram) * torch.eye(len(gram), dtype=gram.dtype)
        self.matrix = torch.linalg.solve(gram + ridge, x.mT @ y.flatten(1))
        self.shape = y.shape[1:]

    @staticmethod
    def _rows(x):
        return torch.cat([x.flatten(1), x.new_ones(len(x), 1)], 1).double()

    def __call__(self, x):
        return (self._rows(x) @ self.matrix).view(-1, *self.shape).to(x)


def rows(folder, name):
    degrade, inn = DEGRADATIONS[name], trained(folder, name)
    train, test = (torch.from_numpy(faces(s)) for s in ("train", "test"))
    y = degrade(test)

    def rmse(values):
        return values.double().square().mean().sqrt().item()

    with torch.no_grad():
        c, d = inn(test)
        moved, back = inn.inverse(y, d) - test, inn.inverse(c, d) - test
    found = {"linear map": rmse(LinearMap(train, degrade(train))(test) - y), "INN": misfit(inn, test, y)}
    if name in SMOOTH:
        found["smooth"] = rmse(SMOOTH[name](test) - y)
    row = dict(case=name, metric="RMSE of c - y, unseen faces", unit="", n=len(test))
    for method, value in found.items():
        yield row | dict(method=method, value=value)
    row["metric"] = "inverse"
    yield row | dict(method="RMSE of x over that of c", value=rmse(moved) / found["INN"])
    yield row | dict(method="round trip, largest error", value=back.abs().max().item())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="weights and checkpoints")
    parser.add_argument(
        "--only", nargs="+", choices=list(DEGRADATIONS), help="some degradations; no results file"
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    names = options.only or list(DEGRADATIONS)
    table = pd.DataFrame(
        [row for name in progress(names, "degradations") for row in rows(options.folder, name)]
    )
    print(table[["case", "method", "metric", "value"]].to_string())
    if not options.only:
        write_results("train_inn", table)


if __name__ == "__main__":
    main()
