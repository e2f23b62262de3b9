"""What DeepSpeed holds of a training, as whole tensors in safetensors files.

DeepSpeed's own checkpoints are pickles, one a worker, for one number of workers and one ZeRO stage.
These are neither: parameters and Adam's moments are gathered when written and cut up again when read, so
that a group of another size can go on from them. Rank 0 holds twelve bytes a parameter meanwhile.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from equipoise import storage
from equipoise.training.weights import fp32_copies, full_weights

_MOMENTS = ("exp_avg", "exp_avg_sq")
_SCALER = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")


def gather_state(engine: Any, original: dict[str, Any], *, keep: bool) -> dict[str, dict[str, Any]]:
    """Weights and moments by name; collective. Where `keep` is False all of it is dropped at once."""
    weights = {name: value.clone() for name, value in full_weights(engine, original) if keep}
    moments: dict[str, Any] = {}
    # Another optimizer than Adam has other states; it starts them anew.
    states = list(_inner(engine).state.values())
    if states and all(key in state for state in states for key in _MOMENTS):
        for name, parameter in engine.module.named_parameters():
            if parameter.requires_grad:
                for key in _MOMENTS:
                    value = _moment(engine, parameter, key)
                    if keep:
                        moments[f"{name}/{key}"] = value.float().cpu().contiguous().clone()
    return {"weights": weights, "moments": moments}


def write_state(
    engine: Any, gathered: dict[str, dict[str, Any]], folder: Path, position: dict[str, Any]
) -> None:
    """Write what `gather_state` kept, and the counters, into an empty folder.

    Raises:
        OSError: the disk is full.
    """
    for name, tensors in gathered.items():
        _save(tensors, folder / f"{name}.safetensors")
    counters = {
        "position": position,
        "global_steps": engine.global_steps,
        "global_samples": engine.global_samples,
        "skipped_steps": engine.skipped_steps,
        "adam_steps": _adam_steps(engine),
        "schedule": engine.lr_scheduler.state_dict() if engine.lr_scheduler else None,
        "loss_scaler": {
            name: value
            for name in _SCALER
            if isinstance(value := getattr(_scaler(engine), name, None), int | float)
        },
    }
    storage.put_json(str(folder / "state.json"), counters)


def load_weights(model: Any, folder: Path) -> None:
    """Put a checkpoint's weights into a model that DeepSpeed has not seen yet."""
    from safetensors.torch import load_file

    model.load_state_dict(load_file(folder / "weights.safetensors"), strict=False)


def read_state(engine: Any, folder: Path) -> dict[str, Any]:
    """Put fp32 weights, moments and counters of a checkpoint into the engine; returns the position."""
    from deepspeed.utils import safe_set_full_fp32_param
    from safetensors import safe_open

    counters: dict[str, Any] = storage.read_json(str(folder / "state.json"))
    with (
        safe_open(folder / "weights.safetensors", "pt") as weights,
        safe_open(folder / "moments.safetensors", "pt") as moments,
    ):
        held = set(moments.keys())
        if held:
            _create_moments(engine, counters["adam_steps"])
        copies = fp32_copies(engine)
        for name, parameter in engine.module.named_parameters():
            if not parameter.requires_grad:
                continue
            value = weights.get_tensor(name)
            if id(parameter) in copies:
                copies[id(parameter)].data.copy_(value)
            elif hasattr(parameter, "ds_id"):
                _set_shard(engine, parameter, value, None)
            else:
                safe_set_full_fp32_param(parameter, value)
            for key in _MOMENTS:
                if f"{name}/{key}" in held:
                    _set_moment(engine, parameter, key, moments.get_tensor(f"{name}/{key}"))
    for name in ("global_steps", "global_samples", "skipped_steps"):
        setattr(engine, name, counters[name])
    if engine.lr_scheduler and counters["schedule"]:
        engine.lr_scheduler.load_state_dict(counters["schedule"])
        # Sets the optimizer's rate as well, which loading alone does not.
        engine.lr_scheduler.step(engine.lr_scheduler.last_batch_iteration)
    for name, value in counters["loss_scaler"].items():
        setattr(_scaler(engine), name, value)
    position: dict[str, Any] = counters["position"]
    return position


def _save(tensors: dict[str, Any], file: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, file, metadata={"format": "pt"})
    except SafetensorError as error:
        # The Rust writer turns the system's error into text.
        for number in storage.FULL:
            if f"os error {number}" in str(error):
                raise OSError(number, "No space left on device", str(file)) from error
        raise


def _inner(engine: Any) -> Any:
    """torch's optimizer within DeepSpeed's."""
    return getattr(engine.optimizer, "optimizer", engine.optimizer)


def _scaler(engine: Any) -> Any:
    found = getattr(engine.optimizer, "loss_scaler", None)
    return found or getattr(engine.optimizer, "loss_scale_config", None)


def _moment(engine: Any, parameter: Any, key: str) -> Any:
    from deepspeed.utils import safe_get_full_optimizer_state

    if hasattr(parameter, "ds_id") or hasattr(parameter, "_hp_mapping"):
        return safe_get_full_optimizer_state(parameter, key)
    return _inner(engine).state[fp32_copies(engine).get(id(parameter), parameter)][key]


def _set_moment(engine: Any, parameter: Any, key: str, value: Any) -> None:
    from deepspeed.utils import safe_set_full_optimizer_state

    if hasattr(parameter, "ds_id"):
        _set_shard(engine, parameter, value, key)
    elif hasattr(parameter, "_hp_mapping"):
        safe_set_full_optimizer_state(parameter, value, key)
    else:
        _inner(engine).state[fp32_copies(engine).get(id(parameter), parameter)][key].copy_(value)


def _set_shard(engine: Any, parameter: Any, value: Any, key: str | None) -> None:
    """This worker's shard of a stage-3 parameter; DeepSpeed's own setter fails on a padded last shard."""
    zero = engine.optimizer
    shard, _ = zero._get_fp32_opt_state_partition(parameter, False, key)
    mine = value.flatten()[shard.numel() * zero._get_param_partition_rank(parameter) :][: shard.numel()]
    shard[: mine.numel()].data.copy_(mine)


def _adam_steps(engine: Any) -> int:
    """Steps that Adam counts; its state is created by an empty step in some of DeepSpeed's optimizers."""
    return int(next((state["step"] for state in _inner(engine).state.values() if "step" in state), 0))


def _create_moments(engine: Any, steps: int) -> None:
    """Empty moments, as the first step would create them."""
    import torch

    inner = _inner(engine)
    flat = getattr(engine.optimizer, "fp32_partitioned_groups_flat", None)
    held = flat if flat is not None else [p for group in inner.param_groups for p in group["params"]]
    count: Any = torch.tensor(float(steps)) if isinstance(inner, torch.optim.Adam) else steps
    for parameter in held:
        moments = {key: torch.zeros_like(parameter.data, dtype=torch.float32) for key in _MOMENTS}
        inner.state[parameter] = {"step": count.clone() if torch.is_tensor(count) else count, **moments}
    link = getattr(engine.optimizer, "_lazy_init_hp_params_optimizer_state", None)
    if link is not None:
        link()
