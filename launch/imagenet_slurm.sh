#!/usr/bin/env bash
# The published road map on ImageNet with SLURM: 300 epochs, three seeds, one job per run.
# Copy this file and a file of clusters/, and set the site's partition and account in it.
# Look first:  bash imagenet_slurm.sh --dry-run
set -euo pipefail
# Packed images read two to three times as fast: convnext-study pack folder:DIR OUT, then IMAGENET=packed:OUT.
imagenet=${IMAGENET:?name the folder with train/ and val/, as in IMAGENET=/data/imagenet}
case $imagenet in *:*) data=$imagenet ;; *) data=folder:$imagenet ;; esac
cluster=${CLUSTER:-$(dirname "$0")/clusters/one-node.toml}
out=${OUT:-runs/imagenet}
convnext-study roadmap --regime t --data "$data" --seeds 3 --precision bf16 \
  --launcher slurm --cluster "$cluster" --out "$out" "$@"
