# What the rules of restoration share.
from inverseflow.restoration.images import chosen_files, files_of
from inverseflow.restoration.images import image_files as files_in

RESTORATION = CONFIG.restoration
RESTORED = RESTORATION.samples
IMAGES_RAW = Raw(
    "restoration",
    made="images",
    files=lambda path, sample: files_of(path),
    roles=("path", "kernel", "target", "mask", "pairs"),
)
# Denoiser of plug-and-play: the one of the package, or the one that this run trains.
DENOISER = {"pretrained": "pretrained", "train": "trained"}[RESTORATION.train.weights]
PRETRAINED = f"weights/{RESTORATION.train.form}_{'colour' if RESTORATION.data.colour else 'gray'}"


def task_of(wildcards):
    return RESTORED[wildcards.sample].task


def factor_of(wildcards):
    """How many times larger each side becomes."""
    sample = RESTORED[wildcards.sample]
    return sample.factor if sample.task == "super_resolve" else 1


def is_chain(sample):
    """Whether a sample is undone by samples from a diffusion prior."""
    return RESTORED[sample].task == "chain"


def task_settings(sample):
    """The block of infer of a sample's task."""
    return getattr(RESTORATION.infer, RESTORED[sample].task)


def denoiser_of(sample, method):
    """The network that a method needs: pretrained, trained or none."""
    if method in ("pretrained", "trained"):
        return method
    return DENOISER if method in getattr(task_settings(sample), "pnp", {}) else None


def simulated_sources(sample):
    """Files that a simulated sample is made from, where the user has them; ConfigError when there are none."""
    made, key = RESTORED[sample].simulate, f"config restoration.samples.{sample}"
    try:
        files = list(chosen_files(made.images, made.names, "simulate").values())
        if made.kernel not in ("motion", "gaussian"):
            files += files_of(expand_variables(made.kernel, f"{key}.simulate.kernel"))
    except (ValueError, OSError) as error:
        raise ConfigError(f"{key}: {error}") from None
    return [] if made.images == "shipped" and len(files) == len(made.names) else files


def training_images():
    """A value that changes when the user's training images change."""
    if RESTORATION.data.images == "shipped":
        return "shipped"
    return state_of(files_in(RESTORATION.data.images, "data.images"))


for _name, _sample in RESTORED.items():
    if _sample.simulate:
        simulated_sources(_name)

_needed = {
    network
    for sample in RESTORED
    for method in task_settings(sample).methods
    if (network := denoiser_of(sample, method))
}
if (
    "pretrained" in _needed
    and not (ROOT / f"resources/{PRETRAINED}.safetensors").is_file()
):
    raise ConfigError(
        f"config restoration.train: no {PRETRAINED.removeprefix('weights/')} comes with the package, which a method of "
        "this run needs; set train.weights: train, and trained in place of pretrained in infer.denoise.methods"
    )
if "trained" in _needed:
    try:
        training_images()
    except ValueError as error:
        raise ConfigError(f"config restoration.data: {error}") from None


def degraded_from(wildcards):
    """What a simulated sample depends on outside the workflow."""
    files = simulated_sources(wildcards.sample)
    return state_of(files) if files else "shipped"


def measuring_files():
    """{measure: file} of the measures that need a file of the user's; ConfigError when it is missing."""
    found = {}
    for name in ("niqe", "lpips"):
        if path := getattr(RESTORATION.evaluate, name):
            key = f"config restoration.evaluate.{name}"
            found[name] = expand_variables(path, key)
            if not Path(found[name]).is_file():
                raise ConfigError(f"{key}: {found[name]}: no such file")
    return found


MEASURING = measuring_files()


def recorded_truth(wildcards):
    """The store of a simulated sample, which holds its truth."""
    simulated = IMAGES_RAW.simulated(wildcards.sample)
    return IMAGES_RAW.path(wildcards.sample) if simulated else []


def network_settings(wildcards):
    """What a network depends on: the file of the package, or how it is trained."""
    if wildcards.network == "pretrained":
        n_channel = 3 if RESTORATION.data.colour else 1
        file = resource(f"{PRETRAINED}.safetensors")
        return {
            "form": RESTORATION.train.form,
            "n_channel": n_channel,
            "file": file,
        }
    return RESTORATION.train.model_dump(mode="json", exclude={"weights"})


def squares_of_network(name):
    """The training squares, for a network that is trained."""

    def find(wildcards):
        return f"results/restoration/{name}" if wildcards.network == "trained" else []

    return find


def network_of_method(ending):
    """The network of a method, or its card."""

    def find(wildcards):
        network = denoiser_of(wildcards.sample, wildcards.method)
        return f"results/restoration/network/{network}.{ending}" if network else []

    return find


def restore_script(sample, method):
    """The script of a method, each with its own solver: an edit of one reruns no other."""
    if is_chain(sample):
        return f"sample_{'dps' if method == 'dps_true' else method}"
    if method in ("pretrained", "trained"):
        return "infer_network"
    return f"infer_{method if method in ('input', 'wiener', 'tv') else 'pnp'}"


def restore_settings(wildcards):
    """What a method depends on. A new method, or a setting of another, reruns no other."""
    infer, method = RESTORATION.infer, wildcards.method
    if is_chain(wildcards.sample):
        return sample_settings(wildcards.sample, method)
    block = task_settings(wildcards.sample)
    shared = {"tile": infer.tile, "floor_sigma_255": infer.floor_sigma_255}
    own = {
        "input": lambda: {},
        "wiener": lambda: {"strength": block.wiener_strength},
        "tv": lambda: {"strength": block.tv_strength, "n_iter": infer.tv_iter},
        "pretrained": lambda: {"turned": block.turned},
        "trained": lambda: {"turned": block.turned},
    }.get(method, lambda: {"pnp": block.pnp[method].model_dump(mode="json")})
    return {"method": method} | shared | own()


def of_restorations(name, sample):
    """{method: result} of a sample."""
    return {
        m: f"results/restoration/{sample}/{m}/{name}"
        for m in task_settings(sample).methods
    }


def restorations(name):
    """A result of every sample and method."""
    return [path for s in RESTORED for path in of_restorations(name, s).values()]


def iterating(sample):
    """Methods of a sample that have curves."""
    return [
        m
        for m in task_settings(sample).methods
        if m in getattr(task_settings(sample), "pnp", {})
    ]


include: "restoration_chain_common.smk"


_images = "results/restoration"
TARGETS["fingerprints"] += [f"{_images}/{s}/fingerprint.json" for s in RESTORED]
TARGETS["calibrations"] += [
    f"{_images}/{s}/{name}"
    for s in RESTORED
    for name in ("calibration.json", *([] if is_chain(s) else ["calibration.png"]))
]
TARGETS["models"] += [f"{_images}/network/{name}.json" for name in sorted(_needed)]
TARGETS["models"] += [f"{_images}/prior/{name}.json" for name in PRIORS]
TARGETS["models"] += [f"{_images}/{s}/inn.json" for s in INN_LED]
TARGETS["reconstructions"] += restorations("restored.json")
TARGETS["all"] += restorations("tiff") + [f"{_images}/metrics.csv"]
PAGES["restoration"] = {
    "title": "Restoration",
    "text": "Noise, blur and missing pixels taken out of images, by learned denoisers and by plug-and-play solvers; chains of degradations, undone by samples from a diffusion prior.",
    "metrics": f"{_images}/metrics.csv",
    "samples": {
        sample: {
            "pictures": {
                "restored by all methods": f"{_images}/{sample}/pictures.png",
            }
            | ({"training": f"{_images}/{sample}/inn.png"} if sample in INN_LED else {})
            | (
                {}
                if is_chain(sample)
                else {"noise and blur": f"{_images}/{sample}/calibration.png"}
            )
            | (
                {"convergence": f"{_images}/{sample}/convergence.png"}
                if iterating(sample)
                else {}
            ),
            "tables": {},
            "anchors": {"calibration": f"{_images}/{sample}/calibration.json"}
            | {
                f"restored, {method}": anchor
                for method, anchor in of_restorations("restored.json", sample).items()
            },
        }
        for sample in RESTORED
    }
    | {
        f"denoiser, {name}": {
            "pictures": {"training": f"{_images}/network/{name}.png"},
            "tables": {},
            "anchors": {"network": f"{_images}/network/{name}.json"},
        }
        for name in sorted(_needed)
    }
    | {
        f"diffusion prior, {name}": {
            "pictures": {"training": f"{_images}/prior/{name}.png"},
            "tables": {},
            "anchors": {"prior": f"{_images}/prior/{name}.json"},
        }
        for name in PRIORS
    },
    "stages": (
        "calibrate",
        *(["squares"] if "trained" in _needed else []),
        *(f"train_{name}" for name in sorted(_needed)),
        *(f"prior_{name}" for name in PRIORS),
        *(["train_inn"] if INN_LED else []),
        *sorted(
            {
                restore_script(sample, method)
                for sample in RESTORED
                for method in task_settings(sample).methods
            }
        ),
        "evaluate",
    ),
}
