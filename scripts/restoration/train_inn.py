from inverseflow.core.job import job
from inverseflow.core.restart import go_on_or_anew
from inverseflow.restoration.chain import ChainPairs
from inverseflow.restoration.inn_settings import InnSettings
from inverseflow.restoration.pairs import read_pairs
from inverseflow.restoration.patches import Squares
from inverseflow.restoration.train_inn import train_inn

with job(snakemake) as run:
    settings = InnSettings(**run.params.settings)
    if run.params.pairs:
        pairs = read_pairs(run.params.pairs, colour=run.params.shape[0] == 3)
    else:
        pairs = ChainPairs(Squares(run.input.squares), run.params.degradation)
    checkpoint = f"{run.output.network}.checkpoint"
    go_on_or_anew(
        lambda: train_inn(pairs, settings, run.output.network, checkpoint, run.params.code), checkpoint
    )
