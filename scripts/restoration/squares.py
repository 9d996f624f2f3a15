from inverseflow.core.job import job
from inverseflow.core.stores import write_anchor
from inverseflow.restoration.patches import make_squares
from inverseflow.restoration.train_settings import DataSettings

with job(snakemake) as run:
    settings = DataSettings(**run.params.settings)
    with run.compute() as engine:
        sizes = make_squares(settings, run.output.store, engine, run.key)
    write_anchor(run.output.anchor, run.output.store, sizes, "1", settings)
