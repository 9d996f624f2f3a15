import time
from pathlib import Path

import numpy as np

from inverseflow.core.job import job

NEED_MB = 600

with job(snakemake) as run:
    block = np.ones((NEED_MB, 1_000_000 // 8))
    time.sleep(5)  # the memory is sampled every second
    Path(run.output[0]).write_text(f"{block.nbytes // 1_000_000} MB within {run.memory_mb} MB\n")
