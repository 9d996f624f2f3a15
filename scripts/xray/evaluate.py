from inverseflow.core.job import job
from inverseflow.core.stores import open_store, replacing
from inverseflow.xray.evaluate import evaluate
from inverseflow.xray.settings import EvaluateSettings

with job(snakemake) as run:
    table = evaluate(
        run.wildcards.sample,
        {run.wildcards.method: open_store(run.input.layers)},
        open_store(run.input.images),
        EvaluateSettings(**run.params.settings),
        truth=open_store(run.input.truth) if run.input.truth else None,
    )
    with replacing(run.output.metrics) as temporary:
        table.to_csv(temporary, index=False)
