"""Private copies of the project in which snakemake is called as a user would."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("Snakefile", "workflow", "profiles", "scripts", "config", "envs", "inverseflow", "resources")
N_ROW, N_COL, N_CHANNEL = 12, 10, 512
SAMPLES = {
    "made": {
        "simulate": {"n_row": N_ROW, "n_col": N_COL, "n_channel": N_CHANNEL, "counts": 3000, "seed": 1},
        "library_of": "folder",
    },
    "folder": {"path": "raw/folder.zarr", "step_um": 100},
    "file": {"path": "raw/file.npz", "library_of": "folder"},
}
FEW = {"n_sample": 64, "n_cluster": 3}
MICROSCOPE = {  # 5 x 5 lenslets of 5 x 5 pixels, 3 planes
    "magnification": 25,
    "na": 1.0,
    "refractive_index": 1.33,
    "wavelength_nm": 525,
    "mla_pitch_um": 125,
    "mla_focal_um": 1562,
    "camera_pixel_um": 25,
    "voxels_per_lenslet": 3,
    "z_min_um": -10,
    "z_max_um": 10,
    "dz_um": 10,
}
SCENE = {"n_lenslet": 5, "n_neuron": 2, "n_frame": 6, "soma_radius_um": [5, 6], "photons": 200, "seed": 1}
LIGHTFIELD = {
    "microscopes": {"small": MICROSCOPE},
    "samples": {
        "scene": {"microscope": "small", "simulate": SCENE},
        "film": {"microscope": "small", "path": "raw/film.npy", "rectified": True, "frame_ms": 20},
    },
    "calibrate": {"offset_counts": 100},
    "infer": {"methods": ["rl"], "n_iter": 2, "block_frames": 2},
}
PAINTING = {"n_row": 56, "n_col": 64}
XRAY = {
    "samples": {
        "panel": {"simulate": PAINTING | {"seed": 1}},
        "canvas": {"path": "raw/radiograph.tif", "rgb": "raw/colours.png", "polarity": "attenuation"},
    },
    "calibrate": {"registration": "none"},  # too small to be found
    "train": {"schedule": "demo", "n_layer": 2, "n_filter": 8},
    "infer": {"methods": ["csc", "unfolded"], "csc": {"n_iter": 2}},
}
RESTORATION = {
    "samples": {
        "shaken": {
            "task": "deblur",
            "kernel_from": "target",
            "kernel_px": 11,
            "simulate": {"names": ["camera"], "size_px": 48, "sigma_255": 2.55, "kernel_px": 9},
        },
        "snapshot": {"task": "denoise", "path": "raw/snapshot.tif"},
        "faded": {
            "task": "chain",
            "degradation": [{"average": 2}, {"gamma": 0.5}],
            "simulate": {"names": ["chelsea"], "sigma_255": 5, "n_square": 2},
        },
    },
    "diffusion": {
        "data": {
            **{"colour": False, "square": 16, "scales": [0.25], "most_squares": 100},
            "leave_out": ["chelsea"],
        },
        "prior": {
            **{"weights": "train", "width": [16], "n_block": [1], "n_head": 0, "n_step": 8, "batch": 4},
            "validate_every": 4,
        },
        "inn": {"width": [4], "lifting_steps": 1, "n_step": 6, "batch": 4, "validate_every": 3},
    },
    "data": {"square": 32, "scales": [0.25], "most_squares": 100},
    "train": {
        **{"weights": "train", "width": [8, 8], "depth": [1, 1], "n_step": 12, "batch": 4, "crop": 32},
        **{"checkpoint_every": 4, "validate_every": 6},
    },
    "infer": {
        "tv_iter": 40,
        "denoise": {"methods": ["input", "trained"]},
        "deblur": {"methods": ["input", "tv"]},
        "chain": {
            **{"methods": ["input", "dps", "indigo"], "n_sample": 2},
            **{"dps": {"n_eval": 4}, "indigo": {"n_eval": 4}},
        },
    },
}


class Run:
    """A copy of the project with its configuration and results."""

    def __init__(self, folder):
        self.dir = folder

    def __truediv__(self, name):
        return self.dir / name

    def process(self, *args, **options):
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *args]
        return subprocess.Popen(
            command, cwd=self.dir, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options
        )

    def snakemake(self, *args, ok=True, **environment):
        """Run, and give what was printed."""
        process = self.process(*args, env=os.environ | environment)
        text, _ = process.communicate(timeout=1800)
        assert (process.returncode == 0) == ok, text[-8000:]
        return text

    def jobs(self, *args):
        """{(rule, wildcards): reason} of all that a run would execute, target rules left out."""
        text = re.sub(r"^ +", "", self.snakemake("-n", *args), flags=re.M)
        jobs = {}
        for block in re.split(r"\n(?=(?:local)?rule \w+:)", text)[1:]:
            block = block.split("\n\n")[0]
            if "\noutput:" in block:
                rule = re.match(r"(?:local)?rule (\w+):", block)[1]
                wildcards = re.search(r"\nwildcards: (.*)", block)
                jobs[rule, wildcards[1] if wildcards else ""] = re.search(r"\nreason: (.*)", block)[1]
        return jobs

    def rules(self, *args):
        """Rules that a run would execute."""
        return {rule for rule, _ in self.jobs(*args)}

    def samples(self, *args):
        """Samples that a run would work on."""
        return {w.split("sample=")[1].split(",")[0] for _, w in self.jobs(*args) if "sample=" in w}

    def changed(self, *args):
        """Rules whose own code or settings differ from those of the finished run."""
        return {rule for (rule, _), reason in self.jobs(*args).items() if "Params have changed" in reason}

    def edit(self, name, old, new):
        file = self.dir / name
        text = file.read_text()
        assert old in text, f"{old!r} is not in {name}"
        file.write_text(text.replace(old, new, 1))

    def config(self):
        return yaml.safe_load((self.dir / "config/config.yaml").read_text())

    def configure(self, modality="maxrf", **blocks):
        """Change blocks of a modality, such as detect={"false_alarm": 0.01} or mode="blocks"."""
        config = self.config()
        for name, value in blocks.items():
            if isinstance(value, dict):
                config[modality].setdefault(name, {}).update(value)
            else:
                config[modality][name] = value
        (self.dir / "config/config.yaml").write_text(yaml.safe_dump(config))


def write_images(folder):
    """A radiograph in 16 bit, the colours of the painting in 8, and a noisy picture of it in 16."""
    import tifffile
    from PIL import Image

    from inverseflow.xray.painting import virtual_painting
    from inverseflow.xray.settings import SimulateSettings

    made = virtual_painting(SimulateSettings(**PAINTING | {"seed": 5}))
    x, rgb = made["x"].values, made["rgb"].values
    grey = (x - x.min()) / (x.max() - x.min())
    tifffile.imwrite(folder / "radiograph.tif", (500 + 60000 * grey).astype(np.uint16))
    Image.fromarray((255 * rgb.clip(0, 1)).astype(np.uint8).transpose(1, 2, 0)).save(folder / "colours.png")
    noisy = rgb[:, :40, :48] + 0.05 * np.random.default_rng(5).standard_normal((3, 40, 48))
    snapshot = (65535 * noisy.clip(0, 1)).astype(np.uint16).transpose(1, 2, 0)
    tifffile.imwrite(folder / "snapshot.tif", snapshot, photometric="rgb")


def clone(folder, source=ROOT):
    """A fresh copy of the project with tiny recordings: three scans, two movies, two radiographs, a photo."""
    from inverseflow.maxrf.settings import SimulateSettings
    from inverseflow.maxrf.synthetic import painting

    folder.mkdir(parents=True)
    skip = shutil.ignore_patterns("*.pyc")  # what numba has compiled comes along: half a minute less
    for part in PARTS:
        if (source / part).is_dir():
            shutil.copytree(source / part, folder / part, ignore=skip)
        else:
            shutil.copy(source / part, folder / part)
    (folder / "raw").mkdir()
    scan = painting(SimulateSettings(**SAMPLES["made"]["simulate"] | {"seed": 5}))
    counts = scan[["counts"]].chunk({"row": 3})
    counts.to_zarr(folder / "raw/folder.zarr", zarr_format=3, consolidated=False)
    energy = {name: scan.attrs[name] for name in ("zero_kev", "gain_kev", "tube_kv")}
    np.savez(folder / "raw/file.npz", counts=scan["counts"].values[::-1], anode=scan.attrs["anode"], **energy)
    light = np.random.default_rng(5).poisson(60, (6, 25, 25))
    np.save(folder / "raw/film.npy", (100 + light).astype(np.uint16))
    write_images(folder / "raw")
    config = {"maxrf": {"samples": SAMPLES, "summarize": FEW}, "lightfield": LIGHTFIELD, "xray": XRAY}
    config["restoration"] = RESTORATION
    (folder / "config/config.yaml").write_text(yaml.safe_dump(config))
    return Run(folder)
