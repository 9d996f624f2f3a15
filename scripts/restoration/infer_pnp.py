from inverseflow.core.job import job
from inverseflow.restoration.infer import infer
from inverseflow.restoration.methods import Pnp
from inverseflow.restoration.pnp_settings import PnpSettings

with job(snakemake) as run:
    settings = run.params.settings
    pnp = PnpSettings(**settings["pnp"])
    method = Pnp(run.params.task, run.params.factor, pnp, run.input.network)
    with run.compute() as engine:
        infer(run.input.images, method, settings, run.output.store, engine, run.key, run.output.anchor)
