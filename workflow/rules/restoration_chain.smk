# What samples of task chain need besides: squares, a diffusion prior, a network of each degradation, pictures.


rule restoration_prior_squares:
    """Squares of clean images, which priors and networks of degradations learn from."""
    output:
        store=directory("results/restoration/prior/squares.zarr"),
        anchor="results/restoration/prior/squares.json",
    log:
        "logs/restoration/prior_squares.log",
    benchmark:
        "results/benchmarks/restoration/prior_squares.tsv"
    conda:
        "../../envs/restoration.yaml"
    threads: 2
    resources:
        mem_mb=memory(2000),
        runtime=60,
    params:
        code=code("restoration/squares.py"),
        state=lambda wildcards: prior_images(),
        settings=DIFFUSION.data.model_dump(mode="json"),
    script:
        "../../scripts/restoration/squares.py"


rule restoration_prior:
    """The diffusion prior: copied from the package, or trained on the squares."""
    input:
        squares=ancient(squares_of_prior("squares.zarr")),
        anchor=squares_of_prior("squares.json"),
    output:
        prior="results/restoration/prior/{network}.safetensors",
        card="results/restoration/prior/{network}.json",
    log:
        "logs/restoration/prior/{network}.log",
    benchmark:
        "results/benchmarks/restoration/prior/{network}.tsv"
    wildcard_constraints:
        network="pretrained|trained",
    conda:
        "../../envs/restoration.yaml"
    threads: DIFFUSION.prior.parts
    resources:
        mem_mb=memory(3000),
        runtime=2880,
        gpu=CONFIG.gpu,
    params:
        script=lambda wildcards: f"prior_{wildcards.network}",
        code=lambda wildcards: code(f"restoration/prior_{wildcards.network}.py"),
        settings=prior_settings,
    script:
        "../../scripts/restoration/{params.script}.py"


rule restoration_inn:
    """The network that learns the degradation of a sample, from pairs."""
    input:
        squares=ancient(squares_of_inn("squares.zarr")),
        anchor=squares_of_inn("squares.json"),
    output:
        network="results/restoration/{sample}/inn.safetensors",
        card="results/restoration/{sample}/inn.json",
    log:
        "logs/restoration/inn/{sample}.log",
    benchmark:
        "results/benchmarks/restoration/inn/{sample}.tsv"
    conda:
        "../../envs/restoration.yaml"
    threads: DIFFUSION.inn.parts
    resources:
        mem_mb=memory(2500),
        runtime=600,
        gpu=CONFIG.gpu,
    params:
        code=code("restoration/train_inn.py"),
        settings=inn_settings,
        degradation=lambda wildcards: chain_of(wildcards.sample)["degradation"],
        shape=lambda wildcards: chain_of(wildcards.sample)["shape"],
        pairs=pairs_of,
        state=state_of_pairs,
    script:
        "../../scripts/restoration/train_inn.py"


rule restoration_prior_figure:
    """How the training of a prior went."""
    input:
        prior=ancient("results/restoration/prior/{network}.safetensors"),
        card="results/restoration/prior/{network}.json",
    output:
        picture=report(
            "results/restoration/prior/{network}.png",
            caption="../report/restoration_prior.rst",
            category="Restoration",
            subcategory="diffusion prior, {network}",
            labels={"stage": "2 train", "result": "training", "file": "{network}.png"},
        ),
    log:
        "logs/restoration/prior_figure/{network}.log",
    conda:
        "../../envs/restoration.yaml"
    resources:
        mem_mb=memory(1000),
        runtime=30,
    params:
        code=code("restoration/learning_figure.py"),
        title=lambda wildcards: f"diffusion prior, {wildcards.network}",
        held_out="held-out squares, squared error of v",
    script:
        "../../scripts/restoration/learning_figure.py"


rule restoration_inn_figure:
    """How a network learned a degradation."""
    input:
        network=ancient("results/restoration/{sample}/inn.safetensors"),
        card="results/restoration/{sample}/inn.json",
    output:
        picture=report(
            "results/restoration/{sample}/inn.png",
            caption="../report/restoration_inn.rst",
            category="Restoration",
            subcategory="{sample}",
            labels={
                "stage": "2 train",
                "result": "network of the degradation",
                "file": "inn.png",
            },
        ),
    log:
        "logs/restoration/inn_figure/{sample}.log",
    conda:
        "../../envs/restoration.yaml"
    resources:
        mem_mb=memory(1000),
        runtime=30,
    params:
        code=code("restoration/learning_figure.py"),
        title=lambda wildcards: f"{wildcards.sample}: network of the degradation",
        held_out="held-out pairs, root mean square of c - y",
    script:
        "../../scripts/restoration/learning_figure.py"
