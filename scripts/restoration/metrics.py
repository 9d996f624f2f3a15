import pandas as pd

from inverseflow.core.job import job
from inverseflow.core.stores import read_anchor, replacing
from inverseflow.restoration.evaluate import noise_rows

with job(snakemake) as run:
    tables = [pd.read_csv(file) for file in run.input.tables]
    for (sample, sigma_255), anchor in zip(run.params.samples.items(), run.input.calibrations, strict=True):
        tables.append(noise_rows(sample, read_anchor(anchor)["fit"], sigma_255))
    with replacing(run.output.metrics) as temporary:
        pd.concat(tables).to_csv(temporary, index=False)
