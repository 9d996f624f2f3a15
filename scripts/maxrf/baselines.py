from inverseflow.core.job import job

with job(snakemake) as run:
    pass
