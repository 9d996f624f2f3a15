import logging
import os

from inverseflow.core.job import job
from inverseflow.core.training import CheckpointError
from inverseflow.restoration.settings import TrainSettings
from inverseflow.restoration.train import train

with job(snakemake) as run:
    settings = TrainSettings(**run.params.settings)
    checkpoint = f"{run.output.network}.checkpoint"
    try:
        train(run.input.squares, settings, run.output.network, checkpoint, run.params.code)
    except CheckpointError as error:  # before the first step
        logging.getLogger(__name__).warning(
            "%s: it is kept as %s.old, and training begins", error, checkpoint
        )
        os.replace(checkpoint, f"{checkpoint}.old")
        train(run.input.squares, settings, run.output.network, checkpoint, run.params.code)
