from inverseflow.core.job import job
from inverseflow.core.stores import write_anchor
from inverseflow.restoration.simulate_chain import gather

with job(snakemake) as run:
    chain = run.params.chain
    fit = gather(run.params.path, **chain, store=run.output.store)
    sizes = {"n_image": len(fit["sigma_255"])}
    write_anchor(run.output.anchor, run.output.store, sizes, "1", chain, fit=fit)
