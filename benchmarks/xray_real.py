"""X-ray separation of measured images: a cradled panel, and a photograph in colour and in infrared.

cradled_panel, a radiograph of a painting with wooden members behind it and a mask of them: `cradle` beside a
mean shift (the mean of each region of the mask brought to that of the bare panel). There is no truth. Steps
at the edges of upright members are measured on rows that the fit did not see (every other band of 16), and
compared with steps in bare places; contrast is that of the painting behind wood over that beside it, by
quantiles of strips on both sides of the edges: 1 where wood leaves no trace. Virtual panels (synthetic, with
grain in the wood, attenuations as they are) are compared with the same panel without a cradle.

photograph, in register, photograph_off, with colours 3 to 4 pixels off, and photograph_raw, with colours as
the camera took them: infrared stands for the radiograph, because no radiograph of a painting with its colours
could be had. All are registered first. What colours do not explain should be in x2. Without truth there is
no PSNR: residual over the spread of x, edges in both layers (exclusion: 1 when they are in proportion), and
correlation of gradients with those of the colours.

python -m benchmarks.xray_real [FOLDER]     needs INVERSEFLOW_DATA; pictures into FOLDER
"""

import dataclasses
import os
import sys
import time

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402

from benchmarks.core import ROOT, write_results  # noqa: E402
from inverseflow.core.compute import compute  # noqa: E402
from inverseflow.core.drawing import add_axes, new_figure, save, write_title  # noqa: E402
from inverseflow.core.provenance import code_digest  # noqa: E402
from inverseflow.core.settings import expand_variables  # noqa: E402
from inverseflow.core.stores import key_of, open_store  # noqa: E402
from inverseflow.xray.calibrate import calibrate  # noqa: E402
from inverseflow.xray.cradle import find_members, fit_cradle  # noqa: E402
from inverseflow.xray.evaluate import evaluate  # noqa: E402
from inverseflow.xray.infer import infer  # noqa: E402
from inverseflow.xray.methods import method_of  # noqa: E402
from inverseflow.xray.separation_figures import separation_figure, thumbnail  # noqa: E402
from inverseflow.xray.settings import XraySettings  # noqa: E402

DICTIONARY = ROOT / "resources" / "weights" / "xray_dictionary.safetensors"
IN_COLOUR = ("half", "luminance", "levin_weiss", "guided", "csc", "unfolded")
METRICS = {
    "residual": "residual over the spread of x",
    "exclusion": "edges in both layers",
    "gradient_correlation_x1_x2": "correlation of gradients, x1 and x2",
    "gradient_correlation_x1_rgb": "correlation of gradients, x1 and colours",
    "gradient_correlation_x2_rgb": "correlation of gradients, x2 and colours",
}
INFER = ("infer_baselines", "infer_csc", "infer_unfolded", "infer_cradle")
BAND = 16  # rows of a band that is fitted, or measured


def separated(name, config, folder):
    """(calibrated, {method: layers}, {method: CPU seconds}, registration) of one sample."""
    sample = config.samples[name]
    said = sample.model_dump(mode="json", exclude={"simulate"}, exclude_none=True)
    for role in ("path", "rgb", "rgb_back", "cradle_mask"):
        if role in said:
            said[role] = expand_variables(said[role], role)
    settings = [part.model_dump(mode="json") for part in (config.calibrate, config.train, config.infer)]
    scripts = [ROOT / "scripts" / "xray" / f"{name}.py" for name in ("calibrate", *INFER)]
    key = key_of(said, settings, [code_digest(script) for script in scripts])
    images, layers, seconds = folder / name / "calibrated.zarr", {}, {}
    with compute("threads", threads=1) as engine:
        start = time.process_time()
        _, fit = calibrate(said, config.calibrate, images, engine, key)
        seconds["calibrate"] = time.process_time() - start
        methods = IN_COLOUR if sample.rgb else ("half", "cradle")
        for method in [m for m in methods if m != "csc" or DICTIONARY.is_file()]:
            start, network = time.process_time(), None
            if method == "unfolded":
                network = trained(folder / name / "network.safetensors", open_store(images), config.train)
            store = folder / name / f"{method}.zarr"
            task = method_of(method, config.infer, network, DICTIONARY)
            infer(images, task, config.infer.tile, store, engine, key)
            layers[method] = open_store(store)
            seconds[method] = time.process_time() - start
    return open_store(images), layers, seconds, fit.get("rgb", {}).get("quality", {})


def trained(network, images, settings):
    """The network of a painting, kept from an earlier run with these settings; a killed training goes on."""
    from inverseflow.core.weights import read_card
    from inverseflow.xray.train import train

    wanted = settings.model_dump(mode="json")
    if not (network.is_file() and read_card(network)["settings"] == wanted):
        train(images.load(), settings, network, code=code_digest(ROOT / "scripts" / "xray" / "train.py"))
    return network


# ---------------------------------------------------------------- the cradle


def mean_shift(x, mask):
    """Every region of the mask brought to the mean of the bare panel."""
    regions, moved = np.unique(mask), x.copy()
    for region in regions[regions > 0]:
        moved[mask == region] += x[mask == 0].mean() - x[mask == region].mean()
    return moved


def regions_of(mask):
    """1 behind members along columns, 2 behind those along rows, 3 where they cross."""
    columns, rows = find_members(mask)
    found = np.zeros(mask.shape, int)
    for a, b in columns:
        found[:, a:b] += 1
    for a, b in rows:
        found[a:b] += 2
    return found


def unseen(x, mask, settings):
    """(rows, painting there) from a fit to the other bands of rows; members along columns only."""
    of_fit = (np.arange(len(x)) // BAND) % 2 == 0
    at = np.flatnonzero(of_fit)
    halved = settings.model_copy(update={"window_px": settings.window_px // 2})
    half = fit_cradle(x[of_fit], mask[of_fit], halved)

    def moved(edge):
        return edge and dataclasses.replace(edge, places=np.interp(edge.places, np.arange(len(at)), at))

    columns = tuple(tuple(moved(edge) for edge in member) for member in half.columns)
    cradle = dataclasses.replace(half, shape=x.shape, columns=columns, rows=())
    free = ~of_fit
    for a, b in find_members(mask)[1]:
        free[max(a - 2 * BAND, 0) : b + 2 * BAND] = False
    return np.flatnonzero(free), cradle.remove(x, slice(None), slice(None))[0][free]


def steps(image, places, reach=26):
    """Root mean square over places of the step across each: trimmed mean derivatives, summed, in greys."""
    from scipy.stats import trim_mean

    inside = [p for p in places if reach < p < image.shape[1] - reach]
    slopes = [trim_mean(np.diff(image[:, p - reach : p + reach], axis=1), 0.25, axis=0) for p in inside]
    return float(np.sqrt(np.mean([s.sum() ** 2 for s in slopes])))


def contrast(image, edges, reach=26):
    """Spread of greys behind wood over that beside it, by the slope of sorted greys against each other."""
    behind, beside = [], []
    for first, end in edges:
        for at, sign in ((first, 1), (end, -1)):
            if reach + 4 < at < image.shape[1] - reach - 4:
                behind.append(image[:, at + sign * reach - 3 : at + sign * reach + 4].mean(1))
                beside.append(image[:, at - sign * reach - 3 : at - sign * reach + 4].mean(1))
    q = np.linspace(0.05, 0.95, 19)
    quantiles = [np.quantile(np.concatenate(part), q) for part in (beside, behind)]
    return float(np.polyfit(*quantiles, 1)[0])


def cradle_rows(name, data, settings):
    """Rows (case, method, metric, value, unit) of a radiograph with a cradle."""
    x, mask = data["x"].values.astype(float), data["cradle"].values
    members = find_members(mask)[0]
    edges = [e for pair in members for e in pair]
    bare = [(a + b) // 2 for a, b in zip(edges, edges[1:], strict=False)]  # middles of strips and gaps
    rows, cleaned = unseen(x, mask, settings)
    images = {"as it came": x[rows], "mean shift": mean_shift(x, regions_of(mask))[rows], "cradle": cleaned}
    for method, image in images.items():
        yield name, method, "step at members' edges, rows not fitted", steps(image, edges), "1"
        yield name, method, "step in bare places, rows not fitted", steps(image, bare), "1"
        yield name, method, "contrast behind wood over beside it", contrast(image, members), "1"


def virtual_cradles(settings):
    """Rows of virtual panels with a cradle: the radiograph beside that of the same panel without."""
    from inverseflow.xray.painting import TEST, TUNING, virtual_painting

    for name, panel in {**TEST, **TUNING}.items():
        if not panel.cradle:
            continue
        panel = panel.model_copy(update={"n_row": 512, "n_col": 512})
        made = [virtual_painting(panel.model_copy(update={"cradle": c})) for c in (True, False)]
        wood = (made[0]["support"] - made[1]["support"]).values
        along = [np.median(wood, axis) > 0.3 * wood.max() for axis in (1, 0)]
        mask = along[0][:, None] | along[1]
        x, truth = (m["x"].values.astype(float) for m in made)
        everything = slice(None), slice(None)
        cleaned = fit_cradle(x, mask, settings, film=False).remove(x, *everything)[0]
        case = f"{name.replace('_', ' ')} (synthetic)"
        shifted = mean_shift(x, regions_of(mask))
        for method, image in (("as it came", x), ("mean shift", shifted), ("cradle", cleaned)):
            error = (image - truth).std() / truth.std()
            yield case, method, "error over the spread of the panel without cradle", error, "1"


def cradle_picture(data, layers, path, title):
    """Before and after at one contrast, the cradle, and a detail."""
    x, clean, wood = (thumbnail(a, 900) for a in (data["x"], layers["x1"], layers["x2"]))
    n_row, n_col = data["x"].shape
    spot = {"y": slice(n_row // 8, n_row * 5 // 8), "x": slice(n_col // 2, n_col)}
    part = [thumbnail(a.isel(spot), 900) for a in (data["x"], layers["x1"])]
    wide = 6.0
    high = wide * n_row / n_col
    fig = new_figure(2 * wide + 0.9, 3 * (high + 0.4) + 0.35)
    shown = [
        (x, "radiograph", np.percentile(x, [1, 99])),
        (clean, "without the cradle", np.percentile(clean, [1, 99])),
        (wood, "cradle", np.percentile(wood, [0, 99.5])),
        (thumbnail(layers["residual"], 900), "contrast that the wood took", None),
        (part[0], "radiograph, detail", np.percentile(part[0], [1, 99])),
        (part[1], "without the cradle, detail", np.percentile(part[1], [1, 99])),
    ]
    for k, (image, text, limits) in enumerate(shown):
        tall = wide * image.shape[0] / image.shape[1]
        bottom = 0.15 + (2 - k // 2) * (high + 0.4)
        ax = add_axes(fig, 0.2 + (k % 2) * (wide + 0.3), bottom, wide, tall)
        low, top = limits if limits is not None else np.abs(image).max() * np.array([-1, 1])
        ax.imshow(image, cmap="gray" if limits is not None else "RdBu_r", vmin=low, vmax=top, aspect="auto")
        ax.set_title(f"{text}: {low:.2f} to {top:.2f}", fontsize=9, loc="left")
        ax.set_axis_off()
    write_title(fig, title)
    save(fig, path)


def main():
    if not os.environ.get("INVERSEFLOW_DATA"):
        sys.exit("INVERSEFLOW_DATA must name the folder with the measured images (xray/)")
    torch.set_num_threads(1)
    folder = Path(sys.argv[1]) if sys.argv[1:] else ROOT / "results" / "benchmarks" / "xray_real"
    folder.mkdir(parents=True, exist_ok=True)
    config = yaml.safe_load((ROOT / "config" / "test" / "xray.yaml").read_text())["xray"]
    config = XraySettings(**config)
    rows = []
    for name, sample in config.samples.items():
        data, layers, seconds, quality = separated(name, config, folder)
        table = evaluate(name, layers, data, config.evaluate)
        for row in table[table["metric"].isin(METRICS)].itertuples():
            if np.isfinite(row.value):
                rows.append((name, row.method, METRICS[row.metric], row.value, "1"))
        rows += [(name, method, "CPU time", value, "s") for method, value in seconds.items()]
        for key in ("score", "residual_px"):
            if quality.get(key) is not None:
                unit = "px" if key.endswith("px") else "1"
                rows.append(
                    (name, "registration", key.replace("_px", " of the registration"), quality[key], unit)
                )
        separation_figure(data, layers, folder / f"{name}.png", config.figures, title=f"{name} (measured)")
        if sample.cradle_mask:
            found = list(cradle_rows(name, data, config.infer.cradle))
            rows += found
            picture = folder / f"{name}_before_after.png"
            cradle_picture(data, layers["cradle"], picture, f"{name} (measured)")
        print(name, {k: round(v, 1) for k, v in seconds.items()}, "CPU s", flush=True)
    rows += virtual_cradles(config.infer.cradle)
    table = pd.DataFrame(rows, columns=["case", "method", "metric", "value", "unit"])
    order = list(dict.fromkeys(table["metric"]))
    table = table.sort_values("metric", key=lambda m: m.map(order.index), kind="stable")
    print(table.to_string())
    write_results("xray_real", table)


if __name__ == "__main__":
    main()
