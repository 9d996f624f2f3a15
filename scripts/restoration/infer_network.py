from inverseflow.core.job import job
from inverseflow.restoration.infer import infer
from inverseflow.restoration.methods import Network

with job(snakemake) as run:
    settings = run.params.settings
    method = Network(run.input.network, settings["tile"], settings["turned"])
    with run.compute() as engine:
        infer(run.input.images, method, settings, run.output.store, engine, run.key, run.output.anchor)
