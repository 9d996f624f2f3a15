from pathlib import Path

from inverseflow.core.job import job
from inverseflow.core.report import summary_page

with job(snakemake) as run:
    samples = {}
    for sample, elements, anchor in zip(run.params.samples, run.input.elements, run.input.anchors):
        pictures = [p for p in run.input.pictures if Path(p).parent.name == sample]
        samples[sample] = {
            "pictures": {Path(p).stem: p for p in pictures},
            "tables": {"elements": elements},
            "anchors": {"maps": anchor},
        }
    maxrf = {
        "name": "maxrf",
        "title": "MA-XRF",
        "text": "From a scan without an element list to elements with stated confidence and their maps.",
        "metrics": run.input.metrics,
        "samples": samples,
    }
    summary_page(run.output.page, [maxrf], {"maxrf": run.params.settings}, run.params.stages)
