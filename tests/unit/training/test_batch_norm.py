from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from equipoise.training.batch_norm import WideBatchNorm2d, kept_statistics, widen_batch_norms


@pytest.fixture
def pair() -> tuple[nn.Module, nn.Module]:
    """A small network, and the same with wide batch normalization."""
    torch.manual_seed(1)
    plain = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    wide = copy.deepcopy(plain)
    widen_batch_norms(wide)
    assert isinstance(wide[1], WideBatchNorm2d)
    return plain, wide


def test_in_fp32_nothing_changes(pair: tuple[nn.Module, nn.Module]) -> None:
    plain, wide = pair
    images = torch.randn(8, 1, 9, 9)
    torch.testing.assert_close(plain(images), wide(images))
    assert plain.state_dict().keys() == wide.state_dict().keys()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(wide.state_dict()[name], value)
    torch.testing.assert_close(plain.eval()(images), wide.eval()(images))


def test_in_bf16_the_running_statistics_stay_exact(pair: tuple[nn.Module, nn.Module]) -> None:
    plain, wide = pair
    for parameter in wide.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    torch.manual_seed(2)
    for _ in range(60):
        images = torch.randn(32, 1, 9, 9) + 0.5
        plain(images)
        out = wide(images.to(torch.bfloat16))
    assert out.dtype == torch.bfloat16
    assert wide[1].running_mean.dtype == torch.float32
    torch.testing.assert_close(wide[1].running_mean, plain[1].running_mean, rtol=0.02, atol=0.005)
    torch.testing.assert_close(wide[1].running_var, plain[1].running_var, rtol=0.02, atol=0.005)
    out.sum().backward()


def test_rows_that_do_not_count_leave_the_statistics_alone(pair: tuple[nn.Module, nn.Module]) -> None:
    for network in pair:
        network(torch.randn(4, 1, 9, 9))
        before = copy.deepcopy(network.state_dict())
        with kept_statistics(network):
            (network(torch.randn(4, 1, 9, 9) + 3).sum() * 0).backward()
        assert all(module.training for module in network.modules())
        for name, value in network.state_dict().items():
            torch.testing.assert_close(value, before[name])
        network(torch.randn(4, 1, 9, 9) + 3)
        assert not torch.equal(network.state_dict()["1.running_mean"], before["1.running_mean"])
