import zarr

from inverseflow.core.job import job
from inverseflow.core.stores import read_anchor
from inverseflow.restoration.figures import calibration_figure

with job(snakemake) as run:
    kernels = []
    for store in (run.input.images, run.input.truth):
        group = zarr.open_group(store, mode="r") if store else {}
        kernels.append(group["kernel"][:] if "kernel" in group else None)
    calibration_figure(
        read_anchor(run.input.anchor)["fit"],
        run.output.picture,
        *kernels,
        true_255=run.params.sigma_255,
        title=f"{run.wildcards.sample} ({run.params.origin}): noise and blur",
    )
