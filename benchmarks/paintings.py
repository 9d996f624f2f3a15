"""The virtual paintings that x-ray separation is tuned and tested on (synthetic): how strong each layer is.

Contrast: standard deviation of the optical depth of the visible layer (x1), of the concealed paint alone and
of what else is in x2: support, ground, priming, cradle. Hardening is what the exact law for all energies
differs from x1 + x2; noise is that of photons, film and digitisation. Correlations are over the pixels.
256 x 256 pixels of 0.25 mm, 35 kV. Also draws docs/images/paintings.jpg.

python -m benchmarks.paintings     a minute
"""

import numpy as np
import pandas as pd

from benchmarks.core import ROOT, write_results
from inverseflow.xray.grey import grey
from inverseflow.xray.painting import TEST, TUNING, virtual_painting

PICTURE = ROOT / "docs" / "images" / "paintings.jpg"
SHOWN = ("astronaut_on_saint", "coffee_on_hopper", "ship_on_lettering", "saint_and_architecture")


def contrasts(painting):
    """[(name, metric, value)] of a virtual painting."""
    x, x1, x2, support, bent = (
        painting[name].values.astype(float) for name in ("x", "x1", "x2", "support", "hardening")
    )
    luminance = grey(painting["rgb"].values)
    parts = {"x1": x1, "concealed paint": x2 - support, "support": support, "hardening": bent}
    parts["noise"] = x - x1 - x2 - bent
    metric = "contrast in optical depth"
    rows = [(name, metric, part.std()) for name, part in parts.items()]
    rows.append(("concealed paint / x1", metric, (x2 - support).std() / x1.std()))
    rows.append(("x1 with luminance", "correlation", np.corrcoef(x1.ravel(), luminance.ravel())[0, 1]))
    rows.append(("x1 with x2", "correlation", np.corrcoef(x1.ravel(), x2.ravel())[0, 1]))
    return rows


def draw(paintings, path):
    """Colours, radiograph, x1, x2 of paintings {name: Dataset}; greys of a row have the same contrast."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from PIL import Image

    fig, axes = plt.subplots(
        len(paintings), 4, figsize=(9, 2.3 * len(paintings)), dpi=90, layout="constrained"
    )
    for row, painting in zip(axes, paintings.values()):
        x = painting["x"].values
        span = np.percentile(x, 99.5) - np.percentile(x, 0.5)
        row[0].imshow(np.moveaxis(painting["rgb"].values, 0, -1))
        for ax, name in zip(row[1:], ("x", "x1", "x2")):
            low = np.percentile(painting[name], 0.5)
            ax.imshow(painting[name], cmap="gray", vmin=low, vmax=low + span)
    for ax, title in zip(axes[0], ("colours", "radiograph x", "visible layer x1", "concealed layer x2")):
        ax.set_title(f"{title} (synthetic)", fontsize=9)
    for ax in axes.flat:
        ax.set_axis_off()
    fig.canvas.draw()
    pixels = Image.fromarray(np.asarray(fig.canvas.buffer_rgba())[..., :3].copy())
    pixels.save(path, quality=88, optimize=True)
    plt.close(fig)


def main():
    rows, shown = [], {}
    for kind, paintings in (("test", TEST), ("tuning", TUNING)):
        for name, settings in paintings.items():
            painting = virtual_painting(settings)
            support = settings.support + (", cradle" if settings.cradle else "")
            support += ", both sides" if settings.double_sided else ""
            rows += [(f"{kind}: {name} ({support})", *row, "1") for row in contrasts(painting)]
            if name in SHOWN:
                shown[name] = painting
    table = pd.DataFrame(rows, columns=("case", "method", "metric", "value", "unit"))
    write_results("paintings", table)
    draw(shown, PICTURE)
    wide = table.pivot_table(index="case", columns="method", values="value", sort=False)
    print(wide.round(3).to_string())


if __name__ == "__main__":
    main()
