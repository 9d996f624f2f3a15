# Pictures of restoration; the report shows them. Of two pictures with two labels it would make a switch that
# leads nowhere: the third label, the file, keeps it a table.


rule restoration_calibration_figure:
    """Noise levels by both estimators, and the kernel."""
    input:
        images=ancient("results/restoration/{sample}/calibrated.zarr"),
        anchor="results/restoration/{sample}/calibration.json",
        truth=ancient(recorded_truth),
        truth_anchor=IMAGES_RAW.anchor,
    output:
        picture=report(
            "results/restoration/{sample}/calibration.png",
            caption="../report/restoration_calibration.rst",
            category="Restoration",
            subcategory="{sample}",
            labels={
                "stage": "1 calibrate",
                "result": "noise and blur",
                "file": "calibration.png",
            },
        ),
    log:
        "logs/restoration/calibration_figure/{sample}.log",
    conda:
        "../../envs/restoration.yaml"
    resources:
        mem_mb=memory(1500),
        runtime=30,
    params:
        code=code("restoration/calibration_figure.py"),
        origin=IMAGES_RAW.origin,
        sigma_255=lambda wildcards: (made := RESTORED[wildcards.sample].simulate)
        and made.sigma_255,
    script:
        "../../scripts/restoration/calibration_figure.py"


rule restoration_network_figure:
    """How the training of a denoiser went."""
    input:
        network=ancient("results/restoration/network/{network}.safetensors"),
        card="results/restoration/network/{network}.json",
    output:
        picture=report(
            "results/restoration/network/{network}.png",
            caption="../report/restoration_network.rst",
            category="Restoration",
            subcategory="denoiser, {network}",
            labels={"stage": "2 train", "result": "training", "file": "{network}.png"},
        ),
    log:
        "logs/restoration/network_figure/{network}.log",
    conda:
        "../../envs/restoration.yaml"
    resources:
        mem_mb=memory(1000),
        runtime=30,
    params:
        code=code("restoration/network_figure.py"),
    script:
        "../../scripts/restoration/network_figure.py"


rule restoration_figures:
    """The images as restored by all methods, with details."""
    input:
        stores=lambda wildcards: [
            ancient(path)
            for path in of_restorations("restored.zarr", wildcards.sample).values()
        ],
        anchors=lambda wildcards: list(
            of_restorations("restored.json", wildcards.sample).values()
        ),
        images=ancient("results/restoration/{sample}/calibrated.zarr"),
        images_anchor="results/restoration/{sample}/calibration.json",
        truth=ancient(recorded_truth),
        truth_anchor=IMAGES_RAW.anchor,
    output:
        picture=report(
            "results/restoration/{sample}/pictures.png",
            caption="../report/restoration_pictures.rst",
            category="Restoration",
            subcategory="{sample}",
            labels={
                "stage": "3 infer",
                "result": "restored by all methods",
                "file": "pictures.png",
            },
        ),
    log:
        "logs/restoration/figures/{sample}.log",
    conda:
        "../../envs/restoration.yaml"
    resources:
        mem_mb=memory(1500),
        runtime=30,
    params:
        script=lambda wildcards: (
            "chain_figures" if is_chain(wildcards.sample) else "figures"
        ),
        code=lambda wildcards: code(
            f"restoration/{'chain_' if is_chain(wildcards.sample) else ''}figures.py"
        ),
        methods=lambda wildcards: list(task_settings(wildcards.sample).methods),
        task=task_of,
        origin=IMAGES_RAW.origin,
        settings=stage("restoration", "figures"),
    script:
        "../../scripts/restoration/{params.script}.py"


rule restoration_convergence_figure:
    """What the iterations of plug-and-play came to."""
    input:
        anchors=lambda wildcards: [
            of_restorations("restored.json", wildcards.sample)[m]
            for m in iterating(wildcards.sample)
        ],
    output:
        picture=report(
            "results/restoration/{sample}/convergence.png",
            caption="../report/restoration_convergence.rst",
            category="Restoration",
            subcategory="{sample}",
            labels={
                "stage": "3 infer",
                "result": "convergence",
                "file": "convergence.png",
            },
        ),
    log:
        "logs/restoration/convergence_figure/{sample}.log",
    conda:
        "../../envs/restoration.yaml"
    resources:
        mem_mb=memory(1000),
        runtime=30,
    params:
        code=code("restoration/convergence_figure.py"),
        methods=lambda wildcards: iterating(wildcards.sample),
        origin=IMAGES_RAW.origin,
    script:
        "../../scripts/restoration/convergence_figure.py"
