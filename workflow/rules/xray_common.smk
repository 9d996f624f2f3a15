# What the rules of x-ray separation share.
from inverseflow.core.images import image_files

XRAY = CONFIG.xray
XRAY_SAMPLES = list(XRAY.samples)
XRAY_RAW = Raw(
    "xray",
    made="painting",
    files=lambda path, sample: image_files(path),
    roles=("path", "rgb", "rgb_back", "cradle_mask"),
)
# Dictionary of this run: the one of the package, or the one that it learns.
DICTIONARY = {"pretrained": "pretrained", "learn": "learned"}[XRAY.dictionary.weights]


def in_colour(sample):
    """True when the visible side is there in colour; of a panel with a cradle_mask it need not be."""
    return XRAY_RAW.simulated(sample) or XRAY.samples[sample].rgb is not None


def xray_methods(sample):
    """Methods that a painting is separated by: those that have what they need."""
    possible = {
        "half": True,
        "oracle": XRAY_RAW.simulated(sample),
        "cradle": XRAY.samples[sample].cradle_mask is not None,
    }
    return [m for m in XRAY.infer.methods if possible.get(m, in_colour(sample))]


for _name in XRAY_SAMPLES:
    if not xray_methods(_name):
        raise ConfigError(
            f"config xray.infer.methods: expected a method that {_name} has the images for, got none; oracle needs "
            "the truth, cradle a cradle_mask, all others but half need rgb"
        )


def radiograph(wildcards):
    """The images of a painting, and what is said of them."""
    sample = XRAY.samples[wildcards.sample]
    said = sample.model_dump(
        mode="json", exclude={"simulate", *XRAY_RAW.roles}, exclude_none=True
    )
    return {**XRAY_RAW.paths(wildcards), **said}


def simulated_painting(wildcards):
    """The store of a virtual painting, which holds its truth."""
    simulated = XRAY_RAW.simulated(wildcards.sample)
    return XRAY_RAW.path(wildcards.sample) if simulated else []


def starts_from_colours(wildcards):
    """The dictionary, where the training of the networks begins with what it says of colours."""
    if XRAY.train.start != "guide":
        return {}
    dictionary = f"results/xray/dictionary/{DICTIONARY}"
    return {
        "dictionary": ancient(f"{dictionary}.safetensors"),
        "dictionary_card": f"{dictionary}.json",
    }


def used_by(method, name):
    """A result that one method needs and the others do not."""

    def find(wildcards):
        return f"results/xray/{name}" if wildcards.method == method else []

    return find


def truth_of_oracle(find):
    """Store or anchor of the virtual painting, for the oracle alone: the other methods must not see it."""
    return lambda wildcards: find(wildcards) if wildcards.method == "oracle" else []


def infer_script(method):
    """The script of a method, each with its own solver: an edit of one reruns no other."""
    return f"infer_{method if method in ('csc', 'unfolded', 'cradle') else 'baselines'}"


def infer_settings(wildcards):
    """What infer depends on: settings of all methods and of this one. A new method reruns no other."""
    settings = XRAY.infer.model_dump(mode="json", exclude={"methods"})
    blocks = {name for name, value in settings.items() if isinstance(value, dict)}
    return {
        name: value
        for name, value in settings.items()
        if name not in blocks - {wildcards.method}
    }


def dictionary_inputs(wildcards):
    """Calibrated paintings that the dictionary is learned from, and their anchors."""
    learned = XRAY.dictionary.samples if wildcards.dictionary == "learned" else ()
    folders = [f"results/xray/{sample}" for sample in learned]
    return {
        "paintings": [ancient(f"{folder}/calibrated.zarr") for folder in folders],
        "anchors": [f"{folder}/calibration.json" for folder in folders],
    }


def dictionary_settings(wildcards):
    """What a dictionary depends on: the file of the package, or how it is learned."""
    if wildcards.dictionary == "pretrained":
        file = resource("weights/xray_dictionary.safetensors")
        return {"weights": "pretrained", "file": file}
    return XRAY.dictionary.model_dump(mode="json")


def of_methods(name, sample):
    """{method: result} of a painting."""
    return {m: f"results/xray/{sample}/{m}/{name}" for m in xray_methods(sample)}


def xray_results(name):
    """A result of every painting and method."""
    return [path for s in XRAY_SAMPLES for path in of_methods(name, s).values()]


_folder = "results/xray"
_networks = [
    f"{_folder}/{s}/network.json" for s in XRAY_SAMPLES if "unfolded" in xray_methods(s)
]
_learned = {"csc"} | ({"unfolded"} if XRAY.train.start == "guide" else set())
_dictionaries = (
    [f"{_folder}/dictionary/{DICTIONARY}.json"]
    if any(_learned & set(xray_methods(s)) for s in XRAY_SAMPLES)
    else []
)

TARGETS["fingerprints"] += [f"{_folder}/{s}/fingerprint.json" for s in XRAY_SAMPLES]
TARGETS["calibrations"] += [
    f"{_folder}/{s}/{name}"
    for s in XRAY_SAMPLES
    for name in ("calibration.json", "registration.png")
    if name == "calibration.json" or in_colour(s)
]
TARGETS["models"] += _networks + _dictionaries
TARGETS["reconstructions"] += xray_results("layers.json")
TARGETS["all"] += xray_results("x1.tif") + [f"{_folder}/metrics.csv"]
PAGES["xray"] = {
    "title": "X-ray separation",
    "text": "From the radiograph of a painting with a concealed design and its colours to one radiograph of each layer.",
    "metrics": f"{_folder}/metrics.csv",
    "samples": {
        sample: {
            "pictures": {
                "separation by all methods": f"{_folder}/{sample}/separation.png"
            }
            | (
                {"registration": f"{_folder}/{sample}/registration.png"}
                if in_colour(sample)
                else {}
            )
            | (
                {"training of the network": f"{_folder}/{sample}/training.png"}
                if "unfolded" in xray_methods(sample)
                else {}
            )
            | (
                {"objective of csc": f"{_folder}/{sample}/csc/objective.png"}
                if "csc" in xray_methods(sample)
                else {}
            ),
            "tables": {},
            "anchors": {"calibration": f"{_folder}/{sample}/calibration.json"}
            | {
                f"layers, {method}": anchor
                for method, anchor in of_methods("layers.json", sample).items()
            },
        }
        for sample in XRAY_SAMPLES
    }
    | (
        {
            f"dictionary {DICTIONARY}": {
                "pictures": {
                    "atoms of radiograph and colour": f"{_folder}/dictionary/{DICTIONARY}.png"
                },
                "tables": {},
                "anchors": {"dictionary": _dictionaries[0]},
            }
        }
        if _dictionaries
        else {}
    ),
    "stages": (
        "calibrate",
        "dictionary",
        "train",
        *sorted({infer_script(method) for method in XRAY.infer.methods}),
        "evaluate",
    ),
}
