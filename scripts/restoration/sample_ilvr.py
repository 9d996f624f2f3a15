from inverseflow.core.job import job
from inverseflow.restoration.ilvr import ilvr
from inverseflow.restoration.sample import Sampler, sample
from inverseflow.restoration.sampler_settings import IlvrSettings

with job(snakemake) as run:
    settings = run.params.settings
    numbers = IlvrSettings(**settings["numbers"])
    method = Sampler(ilvr, numbers, run.input.prior, settings["given"], settings["precision"])
    with run.compute() as engine:
        sample(run.input.images, method, settings, run.output.store, engine, run.key, run.output.anchor)
