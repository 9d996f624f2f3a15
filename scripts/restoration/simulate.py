from inverseflow.core.job import job
from inverseflow.core.stores import write_anchor
from inverseflow.restoration.settings import SimulateSettings
from inverseflow.restoration.simulate import simulate

with job(snakemake) as run:
    settings = SimulateSettings(**run.params.settings)
    sizes = simulate(settings, run.params.task, run.params.factor, run.output.images)
    write_anchor(run.output.anchor, run.output.images, sizes, "1", settings)
