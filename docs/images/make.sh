#!/usr/bin/env bash
# Make the pictures of the documentation anew, from the simulated samples: activate the environment, then run this.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r Snakefile workflow profiles scripts config envs inverseflow resources "$work"
light=results/lightfield
xray=results/xray/overpainted
(cd "$work" && snakemake --cores 2 --configfile "$OLDPWD/docs/images/painting.yaml" -- results/maxrf/painting/maps.png)
(cd "$work" && snakemake --cores 2 -- $light/tissue/{volumes,em/traces}.png $light/psf/demo.png)
(cd "$work" && snakemake --cores 2 -- $xray/{separation,registration}.png)
(cd "$work" && snakemake --cores 2 -- results/restoration/{shaken,faded}/pictures.png)
python - "$work/results" docs/images <<'PYTHON'
import sys
from pathlib import Path

from PIL import Image

source, target = map(Path, sys.argv[1:])
pictures = {
    "maps": ("maxrf/painting/maps", 96),
    "spectrum": ("maxrf/painting/spectrum", 96),
    "volumes": ("lightfield/tissue/volumes", 256),
    "neurons": ("lightfield/tissue/em/traces", 256),
    "psf": ("lightfield/psf/demo", 96),
}
for name, (file, colours) in pictures.items():
    with Image.open(source / f"{file}.png") as image:
        small = image.convert("RGB")
        small.thumbnail((1800, 1800), Image.Resampling.LANCZOS)
        small.quantize(colours, dither=Image.Dither.NONE).save(target / f"{name}.png", optimize=True)
photographs = {  # many greys: smaller as JPEG
    "separation": "xray/overpainted/separation",
    "registration": "xray/overpainted/registration",
    "restoration": "restoration/shaken/pictures",
    "chain": "restoration/faded/pictures",
}
for name, file in photographs.items():
    with Image.open(source / f"{file}.png") as image:
        small = image.convert("RGB")
        small.thumbnail((1600, 1600), Image.Resampling.LANCZOS)
        small.save(target / f"{name}.jpg", quality=80, optimize=True)
PYTHON
