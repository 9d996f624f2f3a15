# Light-field microscopy, in the order in which the data flow. Once per microscope: psf, train. Per recording: simulate,
# fingerprint, calibrate; per recording and method: infer, traces, projections, evaluate; then figures and metrics.


rule lightfield_simulate:
    """Neurons with known activity, for samples that have a `simulate` block."""
    output:
        movie=directory("results/lightfield/{sample}/movie.zarr"),
        anchor="results/lightfield/{sample}/movie.json",
    log:
        "logs/lightfield/simulate/{sample}.log",
    benchmark:
        "results/benchmarks/lightfield/simulate/{sample}.tsv"
    conda:
        "../../envs/lightfield.yaml"
    resources:
        mem_mb=memory(2000),
        runtime=60,
    params:
        code=code("lightfield/simulate.py"),
        microscope=microscope,
        psf=stage("lightfield", "psf"),
        settings=lambda wildcards: LIGHTFIELD.samples[
            wildcards.sample
        ].simulate.model_dump(mode="json"),
    script:
        "../../scripts/lightfield/simulate.py"


rule lightfield_fingerprint:
    """A small file with the checksums of the raw data, wherever and whatever they are."""
    input:
        movie=ancient(LIGHTFIELD_RAW.input),
        anchor=LIGHTFIELD_RAW.anchor,
    output:
        fingerprint="results/lightfield/{sample}/fingerprint.json",
    log:
        "logs/lightfield/fingerprint/{sample}.log",
    conda:
        "../../envs/lightfield.yaml"
    resources:
        mem_mb=memory(500),
        runtime=60,
    params:
        code=code("lightfield/fingerprint.py"),
        paths=LIGHTFIELD_RAW.paths,
        state=LIGHTFIELD_RAW.state,
    script:
        "../../scripts/lightfield/fingerprint.py"


rule lightfield_psf:
    """What every voxel draws on the camera, once per microscope."""
    output:
        psf=directory("results/lightfield/psf/{microscope}.zarr"),
        anchor="results/lightfield/psf/{microscope}.json",
    log:
        "logs/lightfield/psf/{microscope}.log",
    benchmark:
        "results/benchmarks/lightfield/psf/{microscope}.tsv"
    conda:
        "../../envs/lightfield.yaml"
    resources:
        mem_mb=memory(4000),
        runtime=120,
    params:
        code=code("lightfield/psf.py"),
        microscope=microscope,
        settings=stage("lightfield", "psf"),
    script:
        "../../scripts/lightfield/psf.py"


rule lightfield_calibrate:
    """Lenslet grid, pupil, trust, dark and flat corrections, camera."""
    input:
        movie=ancient(LIGHTFIELD_RAW.input),
        fingerprint="results/lightfield/{sample}/fingerprint.json",
    output:
        calibration="results/lightfield/{sample}/calibration.nc",
        anchor="results/lightfield/{sample}/calibration.json",
    log:
        "logs/lightfield/calibrate/{sample}.log",
    benchmark:
        "results/benchmarks/lightfield/calibrate/{sample}.tsv"
    conda:
        "../../envs/lightfield.yaml"
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        code=code("lightfield/calibrate.py"),
        reader=movie_reader,
        microscope=microscope,
        corrections=corrections,
        settings=stage("lightfield", "calibrate"),
    script:
        "../../scripts/lightfield/calibrate.py"


rule lightfield_train:
    """A network for a microscope: copied from the package, or trained here."""
    input:
        unpack(unlabelled_input),
        psf=ancient(of_microscope("psf/{microscope}.zarr")),
        psf_anchor=of_microscope("psf/{microscope}.json"),
    output:
        network="results/lightfield/network/{microscope}/{network}.safetensors",
        card="results/lightfield/network/{microscope}/{network}.json",
    log:
        "logs/lightfield/train/{microscope}_{network}.log",
    benchmark:
        "results/benchmarks/lightfield/train/{microscope}_{network}.tsv"
    conda:
        "../../envs/lightfield.yaml"
    threads: 2
    resources:
        mem_mb=memory(4000),
        runtime=720,
        gpu=CONFIG.gpu,
    params:
        code=code("lightfield/train.py"),
        readers=unlabelled_readers,
        labels=labelled_volume,
        psf=stage("lightfield", "psf"),
        settings=stage("lightfield", "train"),
    script:
        "../../scripts/lightfield/train.py"


rule lightfield_infer:
    """Volumes of a whole movie by one method, block by block."""
    input:
        movie=ancient(LIGHTFIELD_RAW.input),
        fingerprint="results/lightfield/{sample}/fingerprint.json",
        calibration=ancient("results/lightfield/{sample}/calibration.nc"),
        calibration_anchor="results/lightfield/{sample}/calibration.json",
        psf=ancient(of_microscope("psf/{microscope}.zarr")),
        psf_anchor=of_microscope("psf/{microscope}.json"),
        network=ancient(network_of(".safetensors")),
        card=network_of(".json"),
    output:
        store=directory("results/lightfield/{sample}/{method}/volume.zarr"),
        anchor="results/lightfield/{sample}/{method}/volume.json",
    log:
        "logs/lightfield/infer/{sample}_{method}.log",
    benchmark:
        "results/benchmarks/lightfield/infer/{sample}_{method}.tsv"
    conda:
        "../../envs/lightfield.yaml"
    threads: 2
    resources:
        mem_mb=memory(3000),
        runtime=240,
        gpu=CONFIG.gpu,
    params:
        code=code("lightfield/infer.py"),
        reader=movie_reader,
        settings=INFER,
    script:
        "../../scripts/lightfield/infer.py"


rule lightfield_projections:
    """A movie of largest values, and a picture of it."""
    input:
        volume=ancient("results/lightfield/{sample}/{method}/volume.zarr"),
        volume_anchor="results/lightfield/{sample}/{method}/volume.json",
    output:
        **(
            {"tiff": "results/lightfield/{sample}/{method}/volume.ome.tif"}
            if LIGHTFIELD.infer.export_tiff
            else {}
        ),
        movie="results/lightfield/{sample}/{method}/projections.mp4",
        picture=report(
            "results/lightfield/{sample}/{method}/projections.png",
            caption="../report/lightfield_projections.rst",
            category="Light field",
            subcategory="{sample}",
            labels={
                "stage": "3 infer",
                "result": "projections, {method}",
                "file": "projections.png",
            },
        ),
    log:
        "logs/lightfield/projections/{sample}_{method}.log",
    conda:
        "../../envs/lightfield.yaml"
    resources:
        mem_mb=memory(1500),
        runtime=30,
    params:
        code=code("lightfield/projections.py"),
        origin=LIGHTFIELD_RAW.origin,
    script:
        "../../scripts/lightfield/projections.py"


rule lightfield_traces:
    """Neurons, their calcium traces and events."""
    input:
        movie=ancient(LIGHTFIELD_RAW.input),
        fingerprint="results/lightfield/{sample}/fingerprint.json",
        calibration=ancient("results/lightfield/{sample}/calibration.nc"),
        calibration_anchor="results/lightfield/{sample}/calibration.json",
        psf=ancient(of_microscope("psf/{microscope}.zarr")),
        psf_anchor=of_microscope("psf/{microscope}.json"),
        volume=ancient("results/lightfield/{sample}/{method}/volume.zarr"),
        volume_anchor="results/lightfield/{sample}/{method}/volume.json",
    output:
        neurons="results/lightfield/{sample}/{method}/neurons.csv",
        masks=directory("results/lightfield/{sample}/{method}/masks.zarr"),
        traces="results/lightfield/{sample}/{method}/traces.nc",
        table="results/lightfield/{sample}/{method}/traces.csv",
        anchor="results/lightfield/{sample}/{method}/traces.json",
    log:
        "logs/lightfield/traces/{sample}_{method}.log",
    benchmark:
        "results/benchmarks/lightfield/traces/{sample}_{method}.tsv"
    conda:
        "../../envs/lightfield.yaml"
    resources:
        mem_mb=memory(3000),
        runtime=120,
    params:
        code=code("lightfield/traces.py"),
        reader=movie_reader,
        neurons=given_neurons,
        margin=LIGHTFIELD.infer.margin_lenslets,
        settings=stage("lightfield", "traces"),
    script:
        "../../scripts/lightfield/traces.py"


rule lightfield_evaluate:
    """Measures of one method on one recording, against the truth where it is known."""
    input:
        truth=ancient(simulated_movie),
        truth_anchor=LIGHTFIELD_RAW.anchor,
        calibration=ancient("results/lightfield/{sample}/calibration.nc"),
        calibration_anchor="results/lightfield/{sample}/calibration.json",
        psf=ancient(of_microscope("psf/{microscope}.zarr")),
        psf_anchor=of_microscope("psf/{microscope}.json"),
        network=ancient(network_of(".safetensors")),
        card=network_of(".json"),
        volume=ancient("results/lightfield/{sample}/{method}/volume.zarr"),
        volume_anchor="results/lightfield/{sample}/{method}/volume.json",
        neurons="results/lightfield/{sample}/{method}/neurons.csv",
        traces=ancient("results/lightfield/{sample}/{method}/traces.nc"),
        traces_anchor="results/lightfield/{sample}/{method}/traces.json",
    output:
        metrics="results/lightfield/{sample}/{method}/metrics.csv",
    log:
        "logs/lightfield/evaluate/{sample}_{method}.log",
    benchmark:
        "results/benchmarks/lightfield/evaluate/{sample}_{method}.tsv"
    conda:
        "../../envs/lightfield.yaml"
    resources:
        mem_mb=memory(3000),
        runtime=120,
    params:
        code=code("lightfield/evaluate.py"),
        frames=chosen_frames,
        truth=known_truth,
        infer=INFER,
        psf=stage("lightfield", "psf"),
        settings=stage("lightfield", "evaluate"),
    script:
        "../../scripts/lightfield/evaluate.py"


rule lightfield_figures:
    """Volumes and traces of a recording, all methods beside each other."""
    input:
        movie=ancient(simulated_movie),
        movie_anchor=LIGHTFIELD_RAW.anchor,
        volumes=[
            ancient(f"results/lightfield/{{sample}}/{method}/volume.zarr")
            for method in LIGHTFIELD_METHODS
        ],
        anchors=[
            f"results/lightfield/{{sample}}/{method}/volume.json"
            for method in LIGHTFIELD_METHODS
        ],
        neurons=[
            f"results/lightfield/{{sample}}/{method}/neurons.csv"
            for method in LIGHTFIELD_METHODS
        ],
        traces=[
            f"results/lightfield/{{sample}}/{method}/traces.nc"
            for method in LIGHTFIELD_METHODS
        ],
    output:
        volumes=report(
            "results/lightfield/{sample}/volumes.png",
            caption="../report/lightfield_volumes.rst",
            category="Light field",
            subcategory="{sample}",
            labels={
                "stage": "3 infer",
                "result": "volumes of all methods",
                "file": "volumes.png",
            },
        ),
        traces=[
            report(
                f"results/lightfield/{{sample}}/{method}/traces.png",
                caption="../report/lightfield_traces.rst",
                category="Light field",
                subcategory="{sample}",
                labels={
                    "stage": "4 traces",
                    "result": f"neurons and traces, {method}",
                    "file": "traces.png",
                },
            )
            for method in LIGHTFIELD_METHODS
        ],
    log:
        "logs/lightfield/figures/{sample}.log",
    conda:
        "../../envs/lightfield.yaml"
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        code=code("lightfield/figures.py"),
        methods=LIGHTFIELD_METHODS,
        origin=LIGHTFIELD_RAW.origin,
    script:
        "../../scripts/lightfield/figures.py"


rule lightfield_calibration_figure:
    """The lenslet grid on the frame: to look at before hours of inference."""
    input:
        calibration=ancient("results/lightfield/{sample}/calibration.nc"),
        anchor="results/lightfield/{sample}/calibration.json",
    output:
        picture=report(
            "results/lightfield/{sample}/calibration.png",
            caption="../report/lightfield_calibration.rst",
            category="Light field",
            subcategory="{sample}",
            labels={
                "stage": "1 calibrate",
                "result": "lenslets, pupil and trust",
                "file": "calibration.png",
            },
        ),
    log:
        "logs/lightfield/calibration_figure/{sample}.log",
    conda:
        "../../envs/lightfield.yaml"
    resources:
        mem_mb=memory(1000),
        runtime=30,
    params:
        code=code("lightfield/calibration_figure.py"),
        origin=LIGHTFIELD_RAW.origin,
    script:
        "../../scripts/lightfield/calibration_figure.py"


rule lightfield_psf_figure:
    """What points draw by depth, and how wide."""
    input:
        psf=ancient("results/lightfield/psf/{microscope}.zarr"),
        anchor="results/lightfield/psf/{microscope}.json",
    output:
        picture=report(
            "results/lightfield/psf/{microscope}.png",
            caption="../report/lightfield_psf.rst",
            category="Light field",
            subcategory="microscope {microscope}",
            labels={
                "stage": "1 calibrate",
                "result": "point spread function",
                "file": "{microscope}.png",
            },
        ),
        table="results/lightfield/psf/{microscope}.csv",
    log:
        "logs/lightfield/psf_figure/{microscope}.log",
    conda:
        "../../envs/lightfield.yaml"
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        code=code("lightfield/psf_figure.py"),
    script:
        "../../scripts/lightfield/psf_figure.py"


rule lightfield_network_figure:
    """How the training went."""
    input:
        network=ancient("results/lightfield/network/{microscope}/{network}.safetensors"),
        card="results/lightfield/network/{microscope}/{network}.json",
    output:
        picture=report(
            "results/lightfield/network/{microscope}/{network}.png",
            caption="../report/lightfield_network.rst",
            category="Light field",
            subcategory="microscope {microscope}",
            labels={
                "stage": "2 train",
                "result": "training of {network}",
                "file": "{network}.png",
            },
        ),
    log:
        "logs/lightfield/network_figure/{microscope}_{network}.log",
    conda:
        "../../envs/lightfield.yaml"
    resources:
        mem_mb=memory(1000),
        runtime=30,
    params:
        code=code("lightfield/network_figure.py"),
    script:
        "../../scripts/lightfield/network_figure.py"


rule lightfield_metrics:
    """The measures of all recordings and methods in one table."""
    input:
        collect(
            "results/lightfield/{sample}/{method}/metrics.csv",
            sample=LIGHTFIELD_SAMPLES,
            method=LIGHTFIELD_METHODS,
        ),
    output:
        metrics=report(
            "results/lightfield/metrics.csv",
            caption="../report/lightfield_metrics.rst",
            category="Light field",
            subcategory="all samples",
            labels={
                "stage": "5 evaluate",
                "result": "measures (CSV)",
                "file": "metrics.csv",
            },
        ),
    log:
        "logs/lightfield/metrics.log",
    localrule: True
    conda:
        "../../envs/lightfield.yaml"
    params:
        code=code("lightfield/metrics.py"),
    script:
        "../../scripts/lightfield/metrics.py"
