from inverseflow.core.job import job
from inverseflow.restoration.dps import dps
from inverseflow.restoration.sample import Sampler, sample
from inverseflow.restoration.sampler_settings import DpsSettings

with job(snakemake) as run:
    settings = run.params.settings
    numbers = DpsSettings(**settings["numbers"])
    method = Sampler(dps, numbers, run.input.prior, settings["given"], settings["precision"])
    with run.compute() as engine:
        sample(run.input.images, method, settings, run.output.store, engine, run.key, run.output.anchor)
