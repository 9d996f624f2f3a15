from inverseflow.core.job import job
from inverseflow.restoration.indigo import indigo
from inverseflow.restoration.sample import sample
from inverseflow.restoration.sample_led import Led
from inverseflow.restoration.sampler_settings import IndigoSettings

with job(snakemake) as run:
    settings = run.params.settings
    numbers = IndigoSettings(**settings["numbers"])
    method = Led(indigo, numbers, run.input.prior, [], settings["precision"], run.input.inn)
    with run.compute() as engine:
        sample(run.input.images, method, settings, run.output.store, engine, run.key, run.output.anchor)
