from inverseflow.core.job import job
from inverseflow.core.stores import write_anchor
from inverseflow.xray.calibrate import calibrate
from inverseflow.xray.settings import CalibrateSettings

with job(snakemake) as run:
    settings = CalibrateSettings(**run.params.settings)
    with run.compute() as engine:
        sizes, fit = calibrate(run.params.images, settings, run.output.store, engine, run.key)
    write_anchor(run.output.anchor, run.output.store, sizes, "1", settings, fit=fit)
