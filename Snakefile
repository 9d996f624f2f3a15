from snakemake.utils import min_version

min_version("9.25")


configfile: "config/config.yaml"


include: "workflow/rules/common.smk"


report: "workflow/report/workflow.rst"


wildcard_constraints:
    sample="|".join(SAMPLES),


scattergather:
    rows=MAXRF.blocks,


rule all:
    input:
        "results/maxrf/metrics.csv",
        collect("results/maxrf/{sample}/export", sample=SAMPLES),
        collect("results/maxrf/{sample}/{figure}.png", sample=SAMPLES, figure=FIGURES),
        "results/summary.html",
    localrule: True


# Stage targets, in the order in which data flow. `make run` builds them one invocation after another, so that a
# result that came out the same ends the rerun there (within one invocation Snakemake never does that).
rule fingerprints:
    input:
        collect(FINGERPRINT, sample=SAMPLES),
    localrule: True


rule summaries:
    input:
        collect("results/maxrf/{sample}/summary.json", sample=SAMPLES),
    localrule: True


rule calibrations:
    input:
        collect("results/maxrf/{sample}/calibration.json", sample=CALIBRATED),
    localrule: True


rule libraries:
    input:
        collect("results/maxrf/{sample}/library.npz", sample=CALIBRATED),
    localrule: True


rule elements:
    input:
        collect("results/maxrf/{sample}/elements.csv", sample=CALIBRATED),
    localrule: True


rule maps:
    input:
        collect("results/maxrf/{sample}/maps.json", sample=SAMPLES),
    localrule: True


include: "workflow/rules/maxrf.smk"
include: f"workflow/rules/maxrf_{MAXRF.mode}.smk"
include: "workflow/rules/report.smk"
