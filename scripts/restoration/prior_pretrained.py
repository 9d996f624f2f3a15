from inverseflow.core.job import job
from inverseflow.restoration.pretrained import copy_prior

with job(snakemake) as run:
    copy_prior(run.output.prior)
