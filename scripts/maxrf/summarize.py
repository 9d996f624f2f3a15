from inverseflow.core.job import job
from inverseflow.core.stores import replacing, write_anchor
from inverseflow.maxrf.read import open_scan
from inverseflow.maxrf.settings import SummarizeSettings
from inverseflow.maxrf.summarize import summarize

with job(snakemake) as run:
    settings = SummarizeSettings(**run.params.settings)
    with run.compute() as engine:
        summary = summarize(open_scan(**run.params.reader), settings, engine)
    with replacing(run.output.summary) as temporary:
        summary.to_netcdf(temporary)
    write_anchor(run.output.anchor, run.output.summary, summary.sizes, "counts", settings)
