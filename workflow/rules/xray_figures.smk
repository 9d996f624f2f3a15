# Pictures of x-ray separation, from registration to layers; the report shows them.


rule xray_registration_figure:
    """Edges of the colours on the radiograph: to look at before anything is separated."""
    input:
        images=ancient("results/xray/{sample}/calibrated.zarr"),
        anchor="results/xray/{sample}/calibration.json",
    output:
        picture=report(
            "results/xray/{sample}/registration.png",
            caption="../report/xray_registration.rst",
            category="X-ray separation",
            subcategory="{sample}",
            labels={
                "stage": "1 calibrate",
                "result": "registration",
                "file": "registration.png",
            },
        ),
    log:
        "logs/xray/registration_figure/{sample}.log",
    conda:
        "../../envs/xray.yaml"
    resources:
        mem_mb=memory(1500),
        runtime=30,
    params:
        code=code("xray/registration_figure.py"),
        origin=XRAY_RAW.origin,
    script:
        "../../scripts/xray/registration_figure.py"


rule xray_dictionary_figure:
    """The atoms, in radiograph and colour."""
    input:
        dictionary=ancient("results/xray/dictionary/{dictionary}.safetensors"),
        card="results/xray/dictionary/{dictionary}.json",
    output:
        picture=report(
            "results/xray/dictionary/{dictionary}.png",
            caption="../report/xray_dictionary.rst",
            category="X-ray separation",
            subcategory="dictionary {dictionary}",
            labels={
                "stage": "2 train",
                "result": "atoms of radiograph and colour",
                "file": "{dictionary}.png",
            },
        ),
    log:
        "logs/xray/dictionary_figure/{dictionary}.log",
    conda:
        "../../envs/xray.yaml"
    resources:
        mem_mb=memory(1000),
        runtime=30,
    params:
        code=code("xray/dictionary_figure.py"),
    script:
        "../../scripts/xray/dictionary_figure.py"


rule xray_network_figure:
    """How the training went."""
    input:
        network=ancient("results/xray/{sample}/network.safetensors"),
        card="results/xray/{sample}/network.json",
    output:
        picture=report(
            "results/xray/{sample}/training.png",
            caption="../report/xray_network.rst",
            category="X-ray separation",
            subcategory="{sample}",
            labels={
                "stage": "2 train",
                "result": "training of the network",
                "file": "training.png",
            },
        ),
    log:
        "logs/xray/network_figure/{sample}.log",
    conda:
        "../../envs/xray.yaml"
    resources:
        mem_mb=memory(1000),
        runtime=30,
    params:
        code=code("xray/network_figure.py"),
        origin=XRAY_RAW.origin,
    script:
        "../../scripts/xray/network_figure.py"


rule xray_objective_figure:
    """How the objective of `csc` fell."""
    input:
        anchor="results/xray/{sample}/csc/layers.json",
    output:
        picture=report(
            "results/xray/{sample}/csc/objective.png",
            caption="../report/xray_objective.rst",
            category="X-ray separation",
            subcategory="{sample}",
            labels={
                "stage": "3 infer",
                "result": "objective of csc",
                "file": "objective.png",
            },
        ),
    log:
        "logs/xray/objective_figure/{sample}.log",
    conda:
        "../../envs/xray.yaml"
    resources:
        mem_mb=memory(500),
        runtime=30,
    params:
        code=code("xray/objective_figure.py"),
        origin=XRAY_RAW.origin,
    script:
        "../../scripts/xray/objective_figure.py"


rule xray_figures:
    """The layers of all methods beside each other, with the truth where it is known."""
    input:
        images=ancient("results/xray/{sample}/calibrated.zarr"),
        images_anchor="results/xray/{sample}/calibration.json",
        truth=ancient(simulated_painting),
        truth_anchor=XRAY_RAW.anchor,
        layers=lambda wildcards: [
            ancient(path)
            for path in of_methods("layers.zarr", wildcards.sample).values()
        ],
        anchors=lambda wildcards: list(
            of_methods("layers.json", wildcards.sample).values()
        ),
    output:
        separation=report(
            "results/xray/{sample}/separation.png",
            caption="../report/xray_separation.rst",
            category="X-ray separation",
            subcategory="{sample}",
            labels={
                "stage": "3 infer",
                "result": "separation by all methods",
                "file": "separation.png",
            },
        ),
    log:
        "logs/xray/figures/{sample}.log",
    conda:
        "../../envs/xray.yaml"
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        code=code("xray/figures.py"),
        methods=lambda wildcards: xray_methods(wildcards.sample),
        origin=XRAY_RAW.origin,
        settings=stage("xray", "figures"),
    script:
        "../../scripts/xray/figures.py"
