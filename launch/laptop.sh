#!/usr/bin/env bash
# The whole road map on a laptop: embedded data, three seeds, a quarter of an hour, then its report. Copy and change.
# Look first:  bash laptop.sh --dry-run
set -euo pipefail
out=${OUT:-runs/laptop}
convnext-study roadmap --seeds 3 --out "$out" "$@"
case " $* " in *" --dry-run "*) exit ;; esac
convnext-study report "$out"
