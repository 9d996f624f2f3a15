from inverseflow.core.job import job
from inverseflow.xray.infer import infer
from inverseflow.xray.methods import Cradle
from inverseflow.xray.settings import CradleSettings

with job(snakemake) as run:
    settings = run.params.settings
    method = Cradle(CradleSettings(**settings["cradle"]))
    with run.compute() as engine:
        infer(
            run.input.images, method, settings["tile"], run.output.store, engine, run.key, run.output.anchor
        )
