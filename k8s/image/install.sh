#!/usr/bin/env bash
# Installs Equipoise and the locked dependencies into the image's own Python; run as root by the Dockerfile.
set -euo pipefail
cd /opt/equipoise
PYTHON=$(command -v python)
install() { "$PYTHON" -m pip install --no-cache-dir --disable-pip-version-check -c constraints.txt "$@"; }

# Of the base image's distribution, whose archive keeps no old version for long; GXX=g++=VERSION pins one.
apt-get update
apt-get install -y --no-install-recommends "${GXX:-g++}"
rm -rf /var/lib/apt/lists/*

# What DeepSpeed's build imports has to be there before it: its ops are compiled against this torch.
install torch numpy ninja setuptools wheel py-cpuinfo packaging psutil hjson einops msgpack pydantic tqdm
# Built with the locked setuptools: pip would fetch the newest into an isolated build.
install --no-build-isolation --no-binary deepspeed deepspeed
install --no-build-isolation .

"$PYTHON" - <<'CHECK'
from deepspeed.git_version_info import installed_ops, accelerator_name

wanted = {"cpu": {"deepspeed_shm_comm"}, "cuda": {"fused_adam", "cpu_adam"}}[accelerator_name]
missing = {name for name in wanted if not installed_ops.get(name)}
if missing:
    raise SystemExit(f"DeepSpeed was built without {sorted(missing)}")
CHECK
