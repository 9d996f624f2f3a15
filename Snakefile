from snakemake.utils import min_version

min_version("9.25")


configfile: "config/config.yaml"


include: "workflow/rules/common.smk"


if CONFIG.maxrf:

    include: "workflow/rules/maxrf_common.smk"


if CONFIG.lightfield:

    include: "workflow/rules/lightfield_common.smk"


if CONFIG.xray:

    include: "workflow/rules/xray_common.smk"


if CONFIG.restoration:

    include: "workflow/rules/restoration_common.smk"


report: "workflow/report/workflow.rst"


wildcard_constraints:
    sample="|".join(SAMPLES),


rule all:
    input:
        TARGETS["all"],
        "results/summary.html",
    localrule: True


# Stage targets, in the order in which data flow. `make run` builds them one invocation after another, so that a
# result that came out the same ends the rerun there (within one invocation Snakemake never does that). What a
# target holds of a modality stands in <modality>_common.smk.
rule fingerprints:
    input:
        TARGETS["fingerprints"],
    localrule: True


rule summaries:
    input:
        TARGETS["summaries"],
    localrule: True


rule calibrations:
    input:
        TARGETS["calibrations"],
    localrule: True


rule models:
    input:
        TARGETS["models"],
    localrule: True


rule detections:
    input:
        TARGETS["detections"],
    localrule: True


rule reconstructions:
    input:
        TARGETS["reconstructions"],
    localrule: True


rule traces:
    input:
        TARGETS["traces"],
    localrule: True


if CONFIG.maxrf:

    scattergather:
        rows=MAXRF.blocks,

    include: "workflow/rules/maxrf.smk"
    include: f"workflow/rules/maxrf_{MAXRF.mode}.smk"


if CONFIG.lightfield:

    include: "workflow/rules/lightfield.smk"


if CONFIG.xray:

    include: "workflow/rules/xray.smk"
    include: "workflow/rules/xray_figures.smk"


if CONFIG.restoration:

    include: "workflow/rules/restoration.smk"
    include: "workflow/rules/restoration_chain.smk"
    include: "workflow/rules/restoration_figures.smk"


include: "workflow/rules/report.smk"
