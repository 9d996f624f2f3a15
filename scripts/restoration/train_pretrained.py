from inverseflow.core.job import job
from inverseflow.restoration.pretrained import copy_pretrained

with job(snakemake) as run:
    copy_pretrained(run.params.settings["form"], run.params.settings["n_channel"], run.output.network)
