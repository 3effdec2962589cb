"""nvidia-peermem, loaded by a sidecar once MOFED's driver and ours are ready (reference B.5)."""

import os

PEERMEM_REFCNT = "/sys/module/nvidia_peermem/refcnt"
MLX5_CORE = "/sys/module/mlx5_core"


def probe(root: str = "") -> int:
    """0 unless Mellanox's driver is loaded and nvidia-peermem is not: NVIDIA's liveness test, run every few seconds.

    Imports nothing but os: the operator runs it on every node.
    """
    wanted = os.path.isdir(root + MLX5_CORE)  # noqa: PTH112  # pathlib alone costs more than the whole probe
    return 1 if wanted and not os.path.exists(root + PEERMEM_REFCNT) else 0  # noqa: PTH110  # as above
