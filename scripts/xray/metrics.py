import pandas as pd

from inverseflow.core.job import job
from inverseflow.core.stores import replacing

with job(snakemake) as run:
    table = pd.concat([pd.read_csv(file) for file in run.input])
    with replacing(run.output.metrics) as temporary:
        table.to_csv(temporary, index=False)
