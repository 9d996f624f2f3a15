from inverseflow.core.job import job
from inverseflow.core.report import summary_page

with job(snakemake) as run:
    modalities = [{"name": name, **page} for name, page in run.params.pages.items()]
    summary_page(run.output.page, modalities, run.params.settings, run.params.stages)
