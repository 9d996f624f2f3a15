from inverseflow.core.job import job
from inverseflow.restoration.settings import TrainSettings
from inverseflow.restoration.train import train

with job(snakemake) as run:
    settings = TrainSettings(**run.params.settings)
    train(run.input.squares, settings, run.output.network, code=run.params.code)
