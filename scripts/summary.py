from pathlib import Path

from inverseflow.core.job import job
from inverseflow.core.report import summary_page


def of_sample(files, sample):
    """{name: path} of the files that lie in the folder of a sample."""
    return {Path(file).stem: file for file in files if Path(file).parent.name == sample}


with job(snakemake) as run:
    samples = {}
    for sample, elements in zip(run.params.samples, run.input.elements):
        pictures = of_sample(run.input.pictures, sample)
        samples[sample] = {
            "pictures": {text: pictures[name] for name, text in run.params.figures.items()},
            "tables": {"elements": elements},
            "anchors": of_sample(run.input.anchors, sample),
        }
    maxrf = {
        "name": "maxrf",
        "title": "MA-XRF",
        "text": "From a scan without an element list to elements with stated confidence and their maps.",
        "metrics": run.input.metrics,
        "samples": samples,
    }
    summary_page(run.output.page, [maxrf], {"maxrf": run.params.settings}, run.params.stages)
