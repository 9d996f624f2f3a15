from inverseflow.core.job import job
from inverseflow.restoration.indigo import indigo_plus
from inverseflow.restoration.inn_settings import RefineSettings
from inverseflow.restoration.sample import sample
from inverseflow.restoration.sample_led import LedPlus
from inverseflow.restoration.sampler_settings import IndigoPlusSettings

with job(snakemake) as run:
    settings = run.params.settings
    numbers = IndigoPlusSettings(**settings["numbers"])
    blind = RefineSettings(**settings["blind"]) if settings["blind"] else None
    weights = run.input.prior, [], settings["precision"], run.input.inn
    method = LedPlus(indigo_plus, numbers, *weights, blind)
    with run.compute() as engine:
        sample(run.input.images, method, settings, run.output.store, engine, run.key, run.output.anchor)
