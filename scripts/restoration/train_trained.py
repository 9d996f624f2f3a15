from inverseflow.core.job import job
from inverseflow.core.restart import go_on_or_anew
from inverseflow.restoration.train import train
from inverseflow.restoration.train_settings import TrainSettings

with job(snakemake) as run:
    settings = TrainSettings(**run.params.settings)
    checkpoint = f"{run.output.network}.checkpoint"
    go_on_or_anew(
        lambda: train(run.input.squares, settings, run.output.network, checkpoint, run.params.code),
        checkpoint,
    )
