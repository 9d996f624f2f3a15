from inverseflow.core.job import job
from inverseflow.restoration.ddrm import ddrm
from inverseflow.restoration.sample import Sampler, sample
from inverseflow.restoration.sampler_settings import DdrmSettings

with job(snakemake) as run:
    settings = run.params.settings
    numbers = DdrmSettings(**settings["numbers"])
    method = Sampler(ddrm, numbers, run.input.prior, settings["given"], settings["precision"])
    with run.compute() as engine:
        sample(run.input.images, method, settings, run.output.store, engine, run.key, run.output.anchor)
