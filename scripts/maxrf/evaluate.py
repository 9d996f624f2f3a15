import pandas as pd

from inverseflow.core.job import job
from inverseflow.core.stores import open_store, replacing
from inverseflow.maxrf.evaluate import evaluate
from inverseflow.maxrf.read import open_scan
from inverseflow.maxrf.settings import EvaluateSettings
from inverseflow.maxrf.templates import Library

with job(snakemake) as run:
    table = evaluate(
        open_scan(**run.params.reader),
        Library.load(run.input.library),
        pd.read_csv(run.input.elements, keep_default_na=False),
        open_store(run.input.store),
        open_store(run.input.baselines),
        run.wildcards.sample,
        EvaluateSettings(**run.params.settings),
        truth=open_store(run.input.scan) if run.params.simulated else None,
    )
    with replacing(run.output.metrics) as temporary:
        table.to_csv(temporary, index=False)
