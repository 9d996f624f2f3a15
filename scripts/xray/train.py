from inverseflow.core.job import job
from inverseflow.xray.settings import TrainSettings
from inverseflow.xray.train import train

with job(snakemake) as run:
    settings = TrainSettings(**run.params.settings)
    dictionary = run.input.get("dictionary")
    train(run.input.images, settings, run.output.network, code=run.params.code, dictionary=dictionary)
