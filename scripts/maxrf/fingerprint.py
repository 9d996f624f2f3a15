from inverseflow.core.job import job
from inverseflow.core.rawdata import fingerprint
from inverseflow.core.stores import write_json
from inverseflow.maxrf.read import scan_files

with job(snakemake) as run:
    reader = run.params.reader
    write_json(run.output[0], fingerprint(scan_files(reader["path"], reader.get("format"))))
