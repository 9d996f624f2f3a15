from inverseflow.core.job import job
from inverseflow.restoration.infer import infer
from inverseflow.restoration.methods import Wiener

with job(snakemake) as run:
    settings = run.params.settings
    numbers = settings["strength"], settings["floor_sigma_255"]
    method = Wiener(run.params.task, run.params.factor, *numbers)
    with run.compute() as engine:
        infer(run.input.images, method, settings, run.output.store, engine, run.key, run.output.anchor)
