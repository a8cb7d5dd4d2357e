#!/usr/bin/env bash
# The road map on one GPU: CIFAR-10, 50 epochs, bfloat16, three seeds. Copy and change.
# Look first:  bash one_gpu.sh --dry-run
set -euo pipefail
data=${DATA:-data}   # where CIFAR-10 is, or is to be
out=${OUT:-runs/one-gpu}
convnext-study roadmap --data "cifar10:$data" --download --seeds 3 --epochs 50 \
  --precision bf16 --out "$out" "$@"
case " $* " in *" --dry-run "*) exit ;; esac
convnext-study report "$out"
