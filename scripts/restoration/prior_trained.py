from inverseflow.core.job import job
from inverseflow.core.restart import go_on_or_anew
from inverseflow.restoration.prior_settings import PriorTrainSettings
from inverseflow.restoration.train_prior import train_prior

with job(snakemake) as run:
    settings = PriorTrainSettings(**run.params.settings)
    checkpoint = f"{run.output.prior}.checkpoint"
    go_on_or_anew(
        lambda: train_prior(run.input.squares, settings, run.output.prior, checkpoint, run.params.code),
        checkpoint,
    )
