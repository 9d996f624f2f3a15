import xarray as xr

from inverseflow.core.job import job
from inverseflow.core.stores import replacing
from inverseflow.maxrf.detect import detect
from inverseflow.maxrf.settings import DetectSettings
from inverseflow.maxrf.templates import Library

with job(snakemake) as run:
    summary = xr.load_dataset(run.input.summary)
    elements, pulses = detect(summary, Library.load(run.input.library), DetectSettings(**run.params.settings))
    for table, output in ((elements, run.output.elements), (pulses, run.output.pulses)):
        with replacing(output) as temporary:
            table.to_csv(temporary, index=False)
