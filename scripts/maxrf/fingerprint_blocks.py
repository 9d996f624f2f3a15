from pathlib import Path

from inverseflow.core.job import job
from inverseflow.core.rawdata import fingerprint_rows
from inverseflow.core.stores import block_bounds, write_json
from inverseflow.maxrf.read import open_scan

with job(snakemake) as run:
    scan = open_scan(**run.params.reader)
    if len(run.output) > scan.sizes["row"]:
        raise ValueError(
            f"config maxrf.blocks: expected at most the {scan.sizes['row']} rows of {scan.attrs['source']}, "
            f"got {len(run.output)} blocks; set fewer or use mode whole"
        )
    for output in run.output:
        write_json(output, fingerprint_rows(scan, *block_bounds(Path(output).stem, scan.sizes["row"])))
