from inverseflow.core.job import job
from inverseflow.restoration.export import export

with job(snakemake) as run:
    export(run.input.store, run.output.folder)
