from inverseflow.core.job import job
from inverseflow.restoration.infer import infer
from inverseflow.restoration.methods import Input

with job(snakemake) as run:
    settings = run.params.settings
    method = Input(run.params.task, run.params.factor)
    with run.compute() as engine:
        infer(run.input.images, method, settings, run.output.store, engine, run.key, run.output.anchor)
