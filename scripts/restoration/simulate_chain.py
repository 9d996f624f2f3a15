from inverseflow.core.job import job
from inverseflow.core.stores import write_anchor
from inverseflow.restoration.settings import SimulateSettings
from inverseflow.restoration.simulate_chain import simulate_chain

with job(snakemake) as run:
    settings, chain = SimulateSettings(**run.params.settings), run.params.chain
    sizes = simulate_chain(settings, chain["degradation"], chain["shape"], run.output.images)
    write_anchor(run.output.anchor, run.output.images, sizes, "1", settings, chain=chain)
