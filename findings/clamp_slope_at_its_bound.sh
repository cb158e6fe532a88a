#!/usr/bin/env bash
# torch: the gradient of clamp for a value that lies exactly on a bound changed between 2.13.0 and 2.14.1. Forward values are the same.
# Slopes at (low, inside, high):   2.13.0: 1, 1, 1 for bounds that are numbers and for bounds that are tensors
#                                  2.14.1: 0, 1, 0 for numbers, 1/2, 1, 1/2 for tensors
# So a parameter that begins on its bound (a log std clamped to [min, max] and initialised to max) gets no gradient any more and stays
# there, and a loss with its clip range in a tensor has other gradients than the same loss with the number.
# Seen on 2026-11-30 with CPython 3.11 on a CPU. Downloads two builds of torch (several GB).
# Fails if one of the two versions has other slopes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for pinned in "2.13.0 1.0,1.0,1.0 1.0,1.0,1.0" "2.14.1 0.0,1.0,0.0 0.5,1.0,0.5"; do
  read -r version numbers tensors <<< "$pinned"
  python3 -m venv "$folder/$version"
  "$folder/$version/bin/pip" install --quiet --disable-pip-version-check "torch==$version" "numpy==2.4.6"
  "$folder/$version/bin/python" - "$numbers" "$tensors" <<'PY'
import sys

import torch


def slopes(low, high):
    x = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
    x.clamp(low, high).sum().backward()
    return ",".join(map(str, x.grad.tolist()))


found = [slopes(-1.0, 1.0), slopes(torch.tensor(-1.0), torch.tensor(1.0))]
print(f"torch {torch.__version__}: bounds as numbers {found[0]}, as tensors {found[1]}")
raise SystemExit(found != sys.argv[1:])
PY
  rm -rf "${folder:?}/$version"
done
