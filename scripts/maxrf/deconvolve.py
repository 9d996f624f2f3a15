from inverseflow.core.job import job
from inverseflow.core.stores import block_bounds, write_anchor
from inverseflow.maxrf.deconvolve import deconvolve
from inverseflow.maxrf.read import open_scan
from inverseflow.maxrf.settings import DeconvolveSettings
from inverseflow.maxrf.templates import Library, present_groups

with job(snakemake) as run:
    settings = DeconvolveSettings(**run.params.settings)
    scan = open_scan(**run.params.reader)
    library = Library.load(run.input.library).subset(present_groups(run.input.elements))
    block = run.wildcards.get("scatteritem")
    rows = block_bounds(block, scan.sizes["row"]) if block else (0, scan.sizes["row"])
    with run.compute() as engine:
        deconvolve(scan, library, settings, run.output.store, engine, run.key, rows)
    dims = {"group": len(library.groups), "row": rows[1] - rows[0], "col": scan.sizes["col"]}
    write_anchor(run.output.anchor, run.output.store, dims, "counts", settings)
