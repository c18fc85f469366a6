"""Land seen from above: the stand-in for EuroSAT, a kind of picture the tiny CLIP never met in pre-training."""

import math

import numpy as np
import torch
from torch import Tensor

from fewshot.toy.draw import _mix, _rgb, _smooth_noise, _square_wave

LANDS = ("Annual Crop Land", "Forest", "Herbaceous Vegetation Land", "Highway or Road", "Industrial Buildings", "Pasture Land",
         "Permanent Crop Land", "Residential Buildings", "River", "Sea or Lake")  # fmt: skip


def _curve(u, v, bend, phase):
    """Distance from a winding line along u, in picture half-widths."""
    return (v - bend * torch.sin(u * 2.2 + phase)).abs()


def draw_land(labels: Tensor, generator: torch.Generator, size: int = 64) -> np.ndarray:
    """Draw one overhead picture per label (an index of LANDS); returns uint8 [N, 3, size, size]."""
    n = len(labels)
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    x, y = axis.view(1, 1, -1), -axis.view(1, -1, 1)

    def uniform(low, high):
        return (low + (high - low) * torch.rand(n, generator=generator)).view(-1, 1, 1)

    turn, phase, bend = uniform(0, 2 * math.pi), uniform(0, 2 * math.pi), uniform(-0.35, 0.35)
    u, v = torch.cos(turn) * x + torch.sin(turn) * y, -torch.sin(turn) * x + torch.cos(turn) * y
    u, v = u + uniform(-0.3, 0.3), v + uniform(-0.3, 0.3)
    broad, patchy = _smooth_noise(n, 4, size, generator), _smooth_noise(n, 16, size, generator)
    fine = torch.rand(n, size, size, generator=generator)
    ground = _mix(_rgb(0.42, 0.45, 0.25), _rgb(0.58, 0.52, 0.33), broad)
    block = (torch.sin((u * 7).floor() * 12.9898 + (v * 7).floor() * 78.233 + phase) * 43758.5453).remainder(1)

    def rows(frequency):
        return _square_wave(v * frequency)

    field = ((u * 1.6).floor() + (v * 1.6).floor()).remainder(2)
    inside = ((u * 7).remainder(1) > 0.35) & ((v * 7).remainder(1) > 0.35)
    hall = ((u * 2.5).remainder(1) > 0.3) & ((v * 1.8).remainder(1) > 0.3)
    pictures = (
        _mix(_mix(_rgb(0.60, 0.50, 0.32), _rgb(0.52, 0.56, 0.28), field), _rgb(0.45, 0.38, 0.25), 0.35 * rows(9)),
        _mix(_rgb(0.07, 0.20, 0.10), _rgb(0.14, 0.32, 0.14), 0.5 * patchy + 0.5 * fine),
        _mix(_rgb(0.45, 0.52, 0.28), _rgb(0.33, 0.40, 0.20), patchy),
        _mix(ground, _rgb(0.62, 0.62, 0.64), (_curve(u, v, 0.3 * bend, phase) < 0.10).float()),
        _mix(ground, _mix(_rgb(0.80, 0.80, 0.82), _rgb(0.55, 0.60, 0.68), block), hall.float()),
        _mix(_rgb(0.40, 0.58, 0.24), _rgb(0.48, 0.66, 0.30), broad),
        _mix(
            _mix(_rgb(0.50, 0.46, 0.28), _rgb(0.36, 0.44, 0.22), field), _rgb(0.22, 0.34, 0.14), rows(5) * (fine > 0.2)
        ),
        _mix(ground, _mix(_rgb(0.62, 0.40, 0.34), _rgb(0.72, 0.66, 0.62), block), (inside & (block > 0.25)).float()),
        _mix(ground, _rgb(0.15, 0.28, 0.38), (_curve(u, v, bend, phase) < 0.24).float()),
        _mix(_rgb(0.06, 0.16, 0.34), _rgb(0.10, 0.24, 0.40), broad),
    )
    picture = torch.empty(n, 3, size, size)
    for i in labels.unique().tolist():
        picture[labels == i] = pictures[i][labels == i]
    haze = uniform(0.0, 0.35).unsqueeze(1)
    picture = picture * (1 - haze) + 0.6 * haze + 0.05 * torch.randn(n, 1, size, size, generator=generator)
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
