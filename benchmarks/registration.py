"""Colours registered to a radiograph: known warps recovered, unrelated and mirrored pictures refused.

python -m benchmarks.registration      about 15 minutes; the measured pair needs INVERSEFLOW_DATA
python -m benchmarks.registration --quick    one painting, writes nothing

Warps: the colours of a painting are turned by up to 5 degrees, scaled by 2 %, shifted by 40 pixels, or all
three, and registered to the radiograph; the error is the distance between found and true map, rms over the
frame, in pixels of the radiograph; value and spread are mean and standard deviation over the warps' random
signs (n of them). Virtual paintings (synthetic: seven of the test set, 400 x 500 pixels, with a concealed
design; settings were chosen on others) and a measured pair, infrared for the radiograph, whose true map is
not known: there a warp counts as recovered when it leads to the same place as the registration of the pair
without the warp. "mutual information" is SimpleITK's Mattes measure alone, started from the images' sizes,
over four resolutions (48 bins, 30 % of the pixels, the same optimiser as in this project); "phase
correlation" is scikit-image's, which looks for shifts only. Pairs: colours of every painting against the
radiograph of every other, except where both have a design in common, each as it is and mirrored; and every
painting with its own colours mirrored.
"""

import os
import sys
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import time  # noqa: E402

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from benchmarks.core import write_results  # noqa: E402
from inverseflow.core.images import open_image  # noqa: E402
from inverseflow.xray.grey import grey  # noqa: E402
from inverseflow.xray.mutual_information import most_information  # noqa: E402
from inverseflow.xray.painting import TEST, virtual_painting  # noqa: E402
from inverseflow.xray.register import RegistrationError, register  # noqa: E402
from inverseflow.xray.settings import CalibrateSettings  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "xray"))
from known_warps import known_map, photographed  # noqa: E402

SETTINGS = CalibrateSettings()
WARPS = {
    "5 degrees": (5, 0, 0),
    "2 %": (0, 0.02, 0),
    "40 pixels": (0, 0, 40),
    "5 degrees, 2 %, 40 pixels": (5, 0.02, 40),
}
N_DRAW = 2


def this_project(x, rgb):
    found = register(rgb, x, SETTINGS)
    return found.matrix, found.offset


def mutual_information(x, rgb):
    """The second step of `register` alone, from the images' sizes, whatever it finds."""
    ratio = np.array(rgb.shape[1:]) / np.array(x.shape)
    return most_information(x[None], rgb, np.diag(ratio), ratio * 0.5 - 0.5, (8, 4, 2, 1))[:2]


def phase_correlation(x, rgb):
    from skimage.registration import phase_cross_correlation

    shift = phase_cross_correlation(x, grey(rgb), upsample_factor=10)[0]
    return np.eye(2), -np.array(shift)


METHODS = {
    "this project": this_project,
    "mutual information": mutual_information,
    "phase correlation": phase_correlation,
}


def distance(found, true, shape):
    """(rms over the frame) between two maps (matrix, offset), in pixels of the radiograph."""
    p = np.stack(np.meshgrid(*(np.linspace(0, n - 1, 15) for n in shape), indexing="ij"), -1)
    ends = [p @ matrix.T + offset for matrix, offset in (found, true)]
    return float(np.sqrt((((ends[0] - ends[1]) @ np.linalg.inv(true[0]).T) ** 2).sum(-1).mean()))


def paintings(names):
    for name in names:
        made = virtual_painting(TEST[name].model_copy(update={"n_row": 400, "n_col": 500}))
        yield name, made["x"].values, made["rgb"].values


def measured():
    """(name, infrared (y, x), colours 0 to 1), or nothing."""
    folder = Path(os.environ.get("INVERSEFLOW_DATA", "no-data"), "xray")
    files = [folder / f"falsevisir_a001_{name}.png" for name in ("ir_reregistered", "vis_registered")]
    if all(file.is_file() for file in files):
        infrared, colours = (np.asarray(open_image(file).values, np.float32) for file in files)
        yield "infrared (measured)", infrared, colours / 255


def warps(images, known):
    rng = np.random.default_rng(0)
    for name, x, rgb in images:
        case = f"{name}, {x.shape[0]} x {x.shape[1]}"
        own = {}
        for method, find in METHODS.items():
            start = time.process_time()
            try:
                own[method] = find(x, rgb)
            except RegistrationError as error:
                print(case, method, error, flush=True)
                continue
            seconds = time.process_time() - start
            if known:
                error = distance(own[method], (np.eye(2), np.zeros(2)), x.shape)
                yield case, method, "error without a warp, rms", error, "pixels", 1, ""
            yield case, method, "CPU time", seconds, "s", 1, ""
        refused = 0
        for warp, (turn, grow, shift) in WARPS.items():
            errors = {method: [] for method in METHODS}
            for _ in range(N_DRAW):
                signs = rng.choice([-1, 1], 4)
                true = known_map(x.shape, signs[0] * turn, 1 + signs[1] * grow, shift * signs[2:])
                seen = photographed(rgb, *true)
                for method, find in METHODS.items():
                    matrix, offset = (np.eye(2), np.zeros(2)) if known else own[method]
                    expected = true[0] @ matrix, true[0] @ offset + true[1]
                    try:
                        errors[method].append(distance(find(x, seen), expected, x.shape))
                    except RegistrationError as error:
                        print(case, warp, method, error, flush=True)
                        refused += 1
            for method, values in errors.items():
                if values:
                    mean, spread = float(np.mean(values)), float(np.std(values))
                    yield case, method, f"error after {warp}, rms", mean, "pixels", len(values), spread
        n = N_DRAW * len(WARPS)
        yield case, "this project", "refused", refused, f"of {n}", n, ""
        print(name, flush=True)


def designs(name):
    return {TEST[name].visible, TEST[name].concealed}


def refusals(images):
    """How many pairs that do not belong are accepted, and how many that do are refused."""
    rng = np.random.default_rng(1)
    images = {name: pair for name, *pair in images}
    wrong, mirrored, right = [], [], []
    for name, (x, _) in images.items():
        for other, (_, rgb) in images.items():
            related = TEST[other].visible in designs(name)
            for flip in (False, True):
                if related and (other != name):
                    continue
                turn, grow, shift = rng.uniform(-5, 5), rng.uniform(0.98, 1.02), rng.uniform(-40, 40, 2)
                seen = photographed(rgb, *known_map(x.shape, turn, grow, shift))
                seen = np.ascontiguousarray(seen[..., ::-1]) if flip else seen
                kind = (mirrored if flip else right) if other == name else wrong
                try:
                    quality = register(seen, x, SETTINGS).quality
                    kind.append(True)
                    if kind is not right:
                        print("accepted:", name, other, flip, quality, flush=True)
                except RegistrationError as error:
                    kind.append(False)
                    if kind is right:
                        print("refused:", name, error, flush=True)
    case = f"{len(images)} virtual paintings, 400 x 500, turned by up to 5 degrees, 2 %, 40 pixels"
    for what, kind, bad in (
        ("unrelated pairs accepted", wrong, sum(wrong)),
        ("own colours, mirrored, accepted", mirrored, sum(mirrored)),
        ("own colours refused", right, len(right) - sum(right)),
    ):
        yield case, "this project", what, bad, f"of {len(kind)}", len(kind), ""


def main():
    quick = "--quick" in sys.argv
    names = list(TEST)[:1] if quick else list(TEST)
    rows = list(warps(paintings(names), known=True))
    rows += [] if quick else list(warps(measured(), known=False))
    rows += list(refusals(paintings(names)))
    table = pd.DataFrame(rows, columns=["case", "method", "metric", "value", "unit", "n", "spread"])
    table["spread"] = [f"{s:.2g}" if isinstance(s, float) else s for s in table["spread"]]
    table = table.dropna(subset=["value"])
    if quick:
        print(table.to_string())
    else:
        import SimpleITK
        import skimage

        print(
            write_results("registration", table, simpleitk=SimpleITK.__version__, skimage=skimage.__version__)
        )


if __name__ == "__main__":
    main()
