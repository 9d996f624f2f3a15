from inverseflow.core.job import job
from inverseflow.core.stores import write_anchor
from inverseflow.restoration.infer import infer
from inverseflow.restoration.settings import InferSettings

with job(snakemake) as run:
    settings = InferSettings(**run.params.settings)
    with run.compute() as engine:
        found = infer(
            run.input.images,
            run.wildcards.method,
            run.params.task,
            run.params.factor,
            settings,
            run.input.network or None,
            run.output.store,
            engine,
            run.key,
        )
    sizes, said = {"n_image": len(found)}, {"method": run.wildcards.method, **run.params.settings}
    write_anchor(run.output.anchor, run.output.store, sizes, "1", said, images=found)
