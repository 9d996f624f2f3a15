from inverseflow.core.job import job
from inverseflow.core.stores import replacing
from inverseflow.lightfield.psf import Psf, widths
from inverseflow.lightfield.psf_figures import psf_figure

with job(snakemake) as run:
    psf = Psf.load(run.input.psf)
    table = widths(psf)
    with replacing(run.output.table) as temporary:
        table.to_csv(temporary, index=False)
    psf_figure(
        psf,
        run.output.picture,
        f"Point spread function of microscope {run.wildcards.microscope} (computed)",
        table,
    )
