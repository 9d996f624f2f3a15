from inverseflow.core.job import job
from inverseflow.lightfield.calibrate_figures import calibration_figure
from inverseflow.lightfield.calibration import Calibration

with job(snakemake) as run:
    title = f"{run.wildcards.sample} ({run.params.origin})"
    calibration_figure(Calibration.load(run.input.calibration), run.output.picture, title)
