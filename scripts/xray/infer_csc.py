from inverseflow.core.job import job
from inverseflow.xray.infer import infer
from inverseflow.xray.methods import Csc
from inverseflow.xray.settings import CscSettings

with job(snakemake) as run:
    settings = run.params.settings
    method = Csc(CscSettings(**settings["csc"]), run.input.dictionary)
    with run.compute() as engine:
        infer(
            run.input.images, method, settings["tile"], run.output.store, engine, run.key, run.output.anchor
        )
