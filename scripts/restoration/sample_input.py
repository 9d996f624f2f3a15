from inverseflow.core.job import job
from inverseflow.restoration.sample import Enlarged, sample

with job(snakemake) as run:
    settings = run.params.settings
    method = Enlarged(settings["size"])
    with run.compute() as engine:
        sample(run.input.images, method, settings, run.output.store, engine, run.key, run.output.anchor)
