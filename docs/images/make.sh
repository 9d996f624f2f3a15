#!/usr/bin/env bash
# Make the pictures of the documentation anew, from the simulated painting: activate the environment, then run this.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r Snakefile workflow profiles scripts config envs inverseflow resources "$work"
(cd "$work" && snakemake --cores 2 --configfile "$OLDPWD/docs/images/painting.yaml" -- results/maxrf/painting/maps.png)
python - "$work/results/maxrf/painting" docs/images <<'PYTHON'
import sys
from pathlib import Path

from PIL import Image

source, target = map(Path, sys.argv[1:])
for name in ("maps", "spectrum"):
    with Image.open(source / f"{name}.png") as image:
        small = image.convert("RGB").quantize(96, dither=Image.Dither.NONE)
    small.save(target / f"{name}.png", optimize=True)
PYTHON
