from inverseflow.core.job import job
from inverseflow.core.stores import write_anchor
from inverseflow.restoration.calibrate import calibrate
from inverseflow.restoration.settings import CalibrateSettings, SampleSettings

with job(snakemake) as run:
    settings, sample = CalibrateSettings(**run.params.settings), SampleSettings(**run.params.sample)
    with run.compute() as engine:
        fit = calibrate(run.params.path, sample, settings, run.output.store, engine)
    sizes = {"n_image": len(fit["sigma_255"])}
    write_anchor(run.output.anchor, run.output.store, sizes, "1", settings, fit=fit)
