# What the rules of diffusion samplers share: samples of task chain, their prior, what each method depends on.
import json

from inverseflow.restoration.chain_settings import GIVEN_LINEAR, LED

DIFFUSION = RESTORATION.diffusion
CHAINS = [name for name in RESTORED if is_chain(name)]
SAMPLERS = RESTORATION.infer.chain
_ask = [m for m in SAMPLERS.methods if m != "input"]
# The prior, where a sample needs one, and the samples whose degradation a network learns.
PRIORS = (
    [{"pretrained": "pretrained", "train": "trained"}[DIFFUSION.prior.weights]]
    if CHAINS and _ask
    else []
)
INN_LED = [s for s in CHAINS if any(m in LED for m in SAMPLERS.methods)]
PRIOR_WEIGHTS = "weights/photographs32"


def prior_card():
    """The card of the prior of the package; ConfigError when there is none."""
    card = ROOT / f"resources/{PRIOR_WEIGHTS}.json"
    if not card.is_file():
        raise ConfigError(
            "config restoration.diffusion.prior: no diffusion prior comes with the package; set weights: train"
        )
    return json.loads(card.read_text())


def prior_shape():
    """(channel, y, x) of clean images of task chain."""
    data = DIFFUSION.data
    own = [3 if data.colour else 1, data.square, data.square]
    if DIFFUSION.prior.weights == "train":
        return own
    shape = prior_card()["data"]["shape"]
    if shape != own:
        raise ConfigError(
            f"config restoration.diffusion.data: expected colour: {str(shape[0] == 3).lower()} and square: "
            f"{shape[1]}, those of the prior that comes with the package; set prior.weights: train for others"
        )
    return shape


def steps_of(steps):
    return (
        None
        if steps is None
        else [s.model_dump(mode="json", exclude_none=True) for s in steps]
    )


def chain_of(sample):
    """What is known of a degradation: shapes before and after, steps, noise."""
    settings, shape = RESTORED[sample], prior_shape()
    factor, made = settings.chain_factor, settings.simulate
    known = settings.sigma_255
    return {
        "shape": shape,
        "measured": [shape[0], shape[1] // factor, shape[2] // factor],
        "degradation": steps_of(settings.degradation),
        "linear": steps_of(settings.linear_part),
        "sigma_255": made.sigma_255 if known is None else known,
    }


def chain_to_simulate(wildcards):
    """What is applied to the images of a sample of task chain."""
    if not is_chain(wildcards.sample):
        return None
    chain = chain_of(wildcards.sample)
    return {name: chain[name] for name in ("shape", "degradation")}


def chain_to_gather(wildcards):
    """What the images of a sample of task chain have to be."""
    if not is_chain(wildcards.sample):
        return None
    chain = chain_of(wildcards.sample)
    found = {name: chain[name] for name in ("measured", "sigma_255")}
    return found | {"simulated": IMAGES_RAW.simulated(wildcards.sample)}


def check_chain(sample):
    """ConfigError unless a sample fits the prior, and is not among the images that it learned from."""
    settings, size = RESTORED[sample], prior_shape()[1]
    key = f"config restoration.samples.{sample}"
    if size % settings.chain_factor:
        raise ConfigError(
            f"{key}: expected images {size} / n pixels across, the prior's size over a whole number; the "
            f"degradation makes them {settings.chain_factor} times smaller"
        )
    made, data = settings.simulate, DIFFUSION.data
    if made is None:
        return
    names = list(chosen_files(made.images, made.names, "simulate"))
    seen = {}
    if made.images == data.images:
        seen["leave them out of diffusion.data (leave_out)"] = data.leave_out
    if made.images == "shipped" and DIFFUSION.prior.weights == "pretrained":
        unseen = prior_card()["data"]["leave_out"]
        seen[f"the prior of the package has not seen {', '.join(unseen)}"] = unseen
    for way_out, unseen in seen.items():
        if learned := [name for name in names if name not in unseen]:
            raise ConfigError(
                f"{key}.simulate.names: expected images that nothing learns from, got {learned[0]}; {way_out}"
            )


for _name in CHAINS:
    check_chain(_name)
if CHAINS and (INN_LED or "trained" in PRIORS):
    try:
        files_in(DIFFUSION.data.images, "diffusion.data.images")
    except ValueError as error:
        raise ConfigError(f"config restoration: {error}") from None


def prior_images():
    """A value that changes when the user's images behind prior and networks change."""
    if DIFFUSION.data.images == "shipped":
        return "shipped"
    return state_of(files_in(DIFFUSION.data.images, "diffusion.data.images"))


def prior_settings(wildcards):
    """What a prior depends on: the file of the package, or how it is trained."""
    if wildcards.network == "pretrained":
        return {"file": resource(f"{PRIOR_WEIGHTS}.safetensors")}
    return DIFFUSION.prior.model_dump(mode="json", exclude={"weights"})


def squares_of_prior(name):
    """The training squares, for a prior that is trained."""

    def find(wildcards):
        known = wildcards.network == "pretrained"
        return [] if known else f"results/restoration/prior/{name}"

    return find


def squares_of_inn(name):
    """The training squares, for a network of a known degradation."""

    def find(wildcards):
        given = RESTORED[wildcards.sample].pairs
        return [] if given else f"results/restoration/prior/{name}"

    return find


def pairs_of(wildcards):
    """Folder of the pairs of an unknown degradation, or None."""
    return IMAGES_RAW.path(wildcards.sample, "pairs")


def state_of_pairs(wildcards):
    """A value that changes when the pairs change."""
    sample = wildcards.sample
    if RESTORED[sample].pairs:
        return state_of(IMAGES_RAW.files(sample, "pairs"))
    return "made"


def inn_settings(wildcards):
    """How the network of a sample is trained."""
    factor = RESTORED[wildcards.sample].chain_factor
    level = {"n_level": factor.bit_length() - 1}
    return DIFFUSION.inn.model_dump(mode="json") | level


def prior_of_method(ending):
    """The prior of a method that samples, or its card."""

    def find(wildcards):
        samples = is_chain(wildcards.sample) and wildcards.method != "input"
        return f"results/restoration/prior/{PRIORS[0]}.{ending}" if samples else []

    return find


def inn_of_method(ending):
    """The network of the degradation, for a method that is led by it, or its card."""

    def find(wildcards):
        led = is_chain(wildcards.sample) and wildcards.method in LED
        return f"results/restoration/{wildcards.sample}/inn.{ending}" if led else []

    return find


def sample_settings(sample, method):
    """What a sampler depends on. A new method, or a setting of another, reruns no other."""
    chain, floor = chain_of(sample), RESTORATION.infer.floor_sigma_255
    shared = {
        "method": method,
        "floor_sigma_255": floor,
        "residual_of": chain["degradation"],
        **SAMPLERS.model_dump(mode="json", include={"n_sample", "block", "seed"}),
    }
    if method == "input":
        return shared | {"size": chain["shape"][1:]}
    numbers = getattr(SAMPLERS, method).model_dump(mode="json")
    if method == "ddrm" and numbers["sigma"] is None:
        numbers["sigma"] = chain["sigma_255"] / 255
    own = {"numbers": numbers, "precision": SAMPLERS.precision}
    if method in GIVEN_LINEAR:
        own["given"] = chain["linear"]
    elif method == "dps_true":
        own["given"] = chain["degradation"]
    elif method == "indigo_plus":
        blind = SAMPLERS.blind
        own["blind"] = blind and blind.model_dump(mode="json")
    return shared | own
