from inverseflow.core.job import job
from inverseflow.core.stores import COMPRESSOR, replacing, write_anchor
from inverseflow.maxrf.painted import scan_painting
from inverseflow.maxrf.settings import SimulateSettings
from inverseflow.maxrf.synthetic import painting

with job(snakemake) as run:
    settings = SimulateSettings(**run.params.settings)
    painted = run.input.get("painting")
    scan = scan_painting(painted, settings) if painted else painting(settings)
    encoding = {name: {"compressors": COMPRESSOR} for name in scan.data_vars}
    with replacing(run.output.scan) as temporary:
        scan.to_zarr(temporary, zarr_format=3, consolidated=False, encoding=encoding)
    write_anchor(run.output.anchor, run.output.scan, scan.sizes, "counts", settings)
