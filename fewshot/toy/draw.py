"""Pictures from signed distance functions, a batch at a time.

A scene is a row of integers (what is in it) and floats (how it lies there); :func:`draw` turns a batch of scenes into
uint8 pictures. Every shape is a function of local coordinates (u right, v up, the shape within the unit disc) that
returns distances for three parts: ``body`` (painted in the object's colour and texture), ``accent`` (a second colour:
a roof, a sail, a wing) and ``dark`` (eyes, wheels, windows). A negative distance is inside.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

COLOURS = {
    "red": (0.85, 0.15, 0.15), "orange": (0.95, 0.55, 0.10), "yellow": (0.97, 0.88, 0.20), "green": (0.20, 0.65, 0.25),
    "blue": (0.18, 0.35, 0.85), "purple": (0.55, 0.25, 0.70), "pink": (0.97, 0.60, 0.75), "brown": (0.50, 0.30, 0.15),
    "black": (0.10, 0.10, 0.12), "white": (0.95, 0.95, 0.95),
}  # fmt: skip
TEXTURES = (
    "solid",
    "striped",
    "banded",
    "dotted",
    "checkered",
    "zigzagged",
    "grid",
    "marbled",
    "spiralled",
    "speckled",
)
BACKGROUNDS = ("plain", "grass", "sand", "sea", "sky", "night", "snow", "brick", "forest", "city", "mountain", "room")
STYLES = ("photo", "sketch", "painting")
FAR = 9.0  # the distance of a part that a shape does not have


@dataclass
class Scenes:
    """A batch of scenes; integer fields index the tables above, all tensors have shape [N]."""

    shape: Tensor
    form: Tensor  # variant of the shape: pose, car type, number of petals ...
    colour: Tensor
    pattern: Tensor  # colour of the texture's marks
    accent: Tensor
    texture: Tensor
    background: Tensor
    count: Tensor  # 0: one, 1: two, 2: four copies
    style: Tensor
    size: Tensor  # half the object's extent, in picture half-widths
    x: Tensor
    y: Tensor
    angle: Tensor  # radians
    light: Tensor  # brightness factor
    noise: Tensor  # standard deviation of pixel noise, in units of full scale
    visible: Tensor  # 1: the object is drawn, 0: background only

    def __len__(self) -> int:
        return len(self.shape)

    def __getitem__(self, rows) -> "Scenes":
        return Scenes(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


# -- distances -------------------------------------------------------------------------------------------------------


def _disc(u, v, x, y, r):
    return torch.hypot(u - x, v - y) - r


def _oval(u, v, x, y, a, b):
    return (torch.hypot((u - x) / a, (v - y) / b) - 1) * min(a, b)


def _box(u, v, x, y, a, b):
    return torch.maximum((u - x).abs() - a, (v - y).abs() - b)


def _polygon(u, v, corners):
    """Distance to a convex polygon, corners counter-clockwise: the largest of its half-plane distances."""
    distance = torch.full_like(u, -FAR)
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        length = math.hypot(x1 - x0, y1 - y0)
        distance = torch.maximum(distance, ((u - x0) * (y1 - y0) - (v - y0) * (x1 - x0)) / length)
    return distance


def _stroke(u, v, x0, y0, x1, y1, r):
    """Distance to a round-ended line; end points are numbers or tensors of shape [n, 1, 1]."""
    dx, dy = x1 - x0, y1 - y0
    t = (((u - x0) * dx + (v - y0) * dy) / (dx * dx + dy * dy + 1e-9)).clamp(0, 1)
    return torch.hypot(u - x0 - t * dx, v - y0 - t * dy) - r


def _union(*parts):
    distance = parts[0]
    for part in parts[1:]:
        distance = torch.minimum(distance, part)
    return distance


def _form_values(form, values):
    return torch.tensor(values, dtype=torch.float32)[form].view(-1, 1, 1)


# -- shapes: (u, v, form) -> (body, accent, dark) -------------------------------------------------------------------

Part = Tensor | None


def circle(u, v, form):
    return _disc(u, v, 0, 0, 0.85), None, None


def square(u, v, form):
    return _box(u, v, 0, 0, 0.75, 0.75), None, None


def triangle(u, v, form):
    return _polygon(u, v, [(-0.9, -0.7), (0.9, -0.7), (0.0, 0.9)]), None, None


def star(u, v, form):
    wave = (torch.atan2(u, v) * 5 / (2 * math.pi)).remainder(1)  # one ramp per arm
    return torch.hypot(u, v) - (0.38 + 0.60 * (2 * wave - 1).abs() ** 1.6), None, None


def heart(u, v, form):
    a = u.abs()
    lobes = _disc(a, v, 0.40, 0.30, 0.45)
    tip = torch.maximum((a * 0.78 - (v + 0.85) * 0.62), v - 0.42)
    return _union(lobes, tip), None, None


def moon(u, v, form):
    return torch.maximum(_disc(u, v, 0, 0, 0.88), -_disc(u, v, 0.42, 0.12, 0.70)), None, None


def cross(u, v, form):
    return _union(_box(u, v, 0, 0, 0.85, 0.26), _box(u, v, 0, 0, 0.26, 0.85)), None, None


def ring(u, v, form):
    return (torch.hypot(u, v) - 0.60).abs() - 0.24, None, None


def diamond(u, v, form):
    return (u.abs() * 0.82 + v.abs() * 0.57) - 0.52, None, None


def arrow(u, v, form):
    return _union(_box(u, v, -0.35, 0, 0.5, 0.2), _polygon(u, v, [(0.05, -0.6), (0.9, 0.0), (0.05, 0.6)])), None, None


def leaf(u, v, form):
    body = torch.maximum(_disc(u, v, 0.55, 0, 1.0), _disc(u, v, -0.55, 0, 1.0))
    return _union(body, _box(u, v, 0, -0.85, 0.05, 0.15)), None, torch.maximum(_box(u, v, 0, 0, 0.03, 0.7), body)


def flower(u, v, form):
    petals = _form_values(form, [4, 5, 6, 8])
    outline = torch.hypot(u, v) - (0.62 + 0.28 * torch.cos(torch.atan2(u, v) * petals))
    return outline, _disc(u, v, 0, 0, 0.27), None


def cat(u, v, form):
    a = u.abs()
    ears = _polygon(a, v, [(0.18, 0.45), (0.72, 0.25), (0.66, 0.98)])
    return (
        _union(_oval(u, v, 0, -0.1, 0.75, 0.66), ears),
        _oval(u, v, 0, -0.28, 0.11, 0.07),
        _disc(a, v, 0.3, 0.05, 0.11),
    )


def dog(u, v, form):
    a = u.abs()
    flop = _oval(a, v, 0.66, -0.05, 0.20, 0.48)
    upright = _polygon(a, v, [(0.22, 0.4), (0.62, 0.3), (0.62, 0.95)])
    ears = torch.where(form.view(-1, 1, 1) == 0, flop, upright)
    dark = _union(_disc(a, v, 0.24, 0.18, 0.09), _oval(u, v, 0, -0.28, 0.17, 0.12))
    return _oval(u, v, 0, 0.0, 0.55, 0.72), ears, dark


def rabbit(u, v, form):
    a = u.abs()
    ears = _oval(a, v, 0.25, 0.55, 0.15, 0.45)
    return _union(_disc(u, v, 0, -0.35, 0.52), ears), _oval(a, v, 0.25, 0.55, 0.07, 0.3), _disc(a, v, 0.2, -0.25, 0.08)


def fish(u, v, form):
    body = _oval(u, v, 0.12, 0, 0.66, 0.42)
    tail = _polygon(u, v, [(-0.95, 0.45), (-0.95, -0.45), (-0.35, 0.0)])
    return body, _union(tail, _polygon(u, v, [(-0.1, 0.3), (0.35, 0.3), (0.0, 0.72)])), _disc(u, v, 0.48, 0.1, 0.08)


def bird(u, v, form):
    """form bits: 1 a long bill, 2 a long tail, 4 a crest."""
    bill = _form_values(form, [0.72 + 0.28 * (f & 1) for f in range(8)])
    tail = _form_values(form, [-0.62 - 0.36 * (f >> 1 & 1) for f in range(8)])
    head = _disc(u, v, 0.38, 0.38, 0.28)
    body = _union(_oval(u, v, -0.05, -0.12, 0.55, 0.40), head, _stroke(u, v, -0.4, -0.05, tail, 0.22, 0.10))
    crest = torch.where(form.view(-1, 1, 1) >= 4, _polygon(u, v, [(0.15, 0.55), (0.5, 0.6), (0.1, 0.98)]), FAR)
    dark = _union(_stroke(u, v, 0.6, 0.38, bill, 0.34, 0.06), _disc(u, v, 0.45, 0.45, 0.07),
                  _box(u, v, -0.05, -0.66, 0.03, 0.18))  # fmt: skip
    return _union(body, crest), _oval(u, v, -0.18, -0.08, 0.32, 0.20), dark


def butterfly(u, v, form):
    a = u.abs()
    wings = _union(_oval(a, v, 0.45, 0.32, 0.42, 0.45), _oval(a, v, 0.36, -0.42, 0.32, 0.36))
    return wings, _disc(a, v, 0.45, 0.35, 0.18), _box(u, v, 0, 0, 0.07, 0.7)


def house(u, v, form):
    roof = _polygon(u, v, [(-0.9, 0.1), (0.9, 0.1), (0.0, 0.9)])
    windows = _box(u.abs(), v, 0.4, -0.15, 0.12, 0.12)
    return _box(u, v, 0, -0.38, 0.7, 0.5), roof, _union(_box(u, v, 0, -0.62, 0.14, 0.26), windows)


def tree(u, v, form):
    crown = _union(_disc(u, v, 0, 0.35, 0.52), _disc(u.abs(), v, 0.38, 0.05, 0.36))
    return crown, _box(u, v, 0, -0.6, 0.13, 0.36), None


def car(u, v, form):
    """form: 0 sedan, 1 coupe, 2 van, 3 truck, 4 convertible."""
    f = form.view(-1, 1, 1)
    hull = _box(u, v, 0, -0.18, 0.92, 0.22)
    cabins = (
        _polygon(u, v, [(-0.6, 0.0), (0.6, 0.0), (0.38, 0.42), (-0.38, 0.42)]),
        _polygon(u, v, [(-0.7, 0.0), (0.35, 0.0), (-0.05, 0.36), (-0.35, 0.36)]),
        _box(u, v, -0.1, 0.28, 0.78, 0.34),
        _box(u, v, 0.55, 0.22, 0.32, 0.30),
        _stroke(u, v, 0.2, 0.02, 0.05, 0.3, 0.05),
    )
    cabin = cabins[4]
    for i in range(4):
        cabin = torch.where(f == i, cabins[i], cabin)
    glass = torch.maximum(cabin + 0.10, -(v - 0.08))
    return hull, cabin, _union(_disc(u.abs(), v, 0.52, -0.42, 0.22), torch.where(f == 4, FAR, glass))


def boat(u, v, form):
    hull = _polygon(u, v, [(-0.9, -0.25), (-0.55, -0.7), (0.55, -0.7), (0.9, -0.25)])
    return hull, _polygon(u, v, [(0.08, -0.15), (0.75, -0.15), (0.08, 0.9)]), _box(u, v, 0, 0.2, 0.045, 0.6)


def plane(u, v, form):
    """form bits: 1 swept wings, 2 four engines, 4 a wide tail (seen from above, nose up)."""
    a = u.abs()
    sweep = _form_values(form, [0.0 - 0.45 * (f & 1) for f in range(8)])
    tail = _form_values(form, [0.25 + 0.25 * (f >> 2 & 1) for f in range(8)])
    hull = _oval(u, v, 0, 0, 0.15, 0.92)
    wings = _stroke(a, v, 0.0, 0.18, 0.9, 0.1 + sweep, 0.11)
    fins = _stroke(a, v, 0.0, -0.72, tail, -0.78, 0.07)
    inner = _oval(a, v, 0.36, 0.22, 0.07, 0.15)
    outer = torch.where(form.view(-1, 1, 1) & 2 > 0, _oval(a, v, 0.68, 0.12, 0.07, 0.15), FAR)
    return _union(hull, wings), fins, _union(inner, outer, _oval(u, v, 0, 0.66, 0.07, 0.09))


POSES = {  # arm and leg end points, right then left, for the figure below: name -> (hands, feet, lean)
    "standing": ((0.28, -0.25, -0.28, -0.25), (0.16, -0.92, -0.16, -0.92)),
    "waving": ((0.55, 0.75, -0.28, -0.25), (0.16, -0.92, -0.16, -0.92)),
    "cheering": ((0.55, 0.80, -0.55, 0.80), (0.18, -0.92, -0.18, -0.92)),
    "stretching": ((0.85, 0.28, -0.85, 0.28), (0.18, -0.92, -0.18, -0.92)),
    "running": ((0.55, 0.25, -0.55, -0.05), (0.62, -0.70, -0.70, -0.60)),
    "jumping": ((0.60, 0.75, -0.60, 0.75), (0.60, -0.70, -0.60, -0.70)),
    "kicking": ((0.45, 0.0, -0.55, 0.25), (0.88, -0.25, -0.12, -0.92)),
    "lunging": ((0.80, 0.20, -0.30, -0.20), (0.70, -0.85, -0.65, -0.88)),
    "sitting": ((0.42, -0.18, -0.20, -0.22), (0.75, -0.45, 0.55, -0.52)),
    "balancing": ((0.80, 0.55, -0.80, 0.00), (0.10, -0.92, -0.60, -0.35)),
}


def person(u, v, form):
    """form: the pose, in the order of POSES."""
    table = [hands + feet for hands, feet in POSES.values()]
    rx, ry, lx, ly, rfx, rfy, lfx, lfy = (_form_values(form, [row[i] for row in table]) for i in range(8))
    arms = _union(_stroke(u, v, 0.12, 0.28, rx, ry, 0.09), _stroke(u, v, -0.12, 0.28, lx, ly, 0.09))
    legs = _union(_stroke(u, v, 0.08, -0.3, rfx, rfy, 0.11), _stroke(u, v, -0.08, -0.3, lfx, lfy, 0.11))
    return _union(_box(u, v, 0, 0.02, 0.2, 0.36), arms), _disc(u, v, 0, 0.66, 0.24), legs


SHAPES: dict[str, Callable] = {
    f.__name__: f
    for f in (circle, square, triangle, star, heart, moon, cross, ring, diamond, arrow, leaf, flower, cat, dog, rabbit,
              fish, bird, butterfly, house, tree, car, boat, plane, person)
}  # fmt: skip
SHAPE_NAMES = tuple(SHAPES)
FORMS = {"flower": 4, "dog": 2, "bird": 8, "car": 5, "plane": 8, "person": len(POSES)}


# -- texture, background, style --------------------------------------------------------------------------------------


def _smooth_noise(n, cells, size, generator):
    """[n, size, size] in 0..1: a random grid of ``cells`` x ``cells``, interpolated."""
    grid = torch.rand(n, 1, cells, cells, generator=generator)
    return torch.nn.functional.interpolate(grid, size=(size, size), mode="bicubic", align_corners=True)[:, 0].clamp(
        0, 1
    )


def _square_wave(x):
    return (x.remainder(1) < 0.5).float()


def texture_marks(kind: str, u: Tensor, v: Tensor, noise: Tensor, fine: Tensor) -> Tensor:
    """Where the pattern colour shows, 0..1, [n, S, S]; u, v are the object's own coordinates."""
    if kind == "striped":
        return _square_wave(u * 2.4 + 0.25)
    if kind == "banded":
        return _square_wave(v * 1.6 + 0.25)
    if kind == "dotted":
        return (torch.hypot((u * 2.6).remainder(1) - 0.5, (v * 2.6).remainder(1) - 0.5) < 0.30).float()
    if kind == "checkered":
        return (_square_wave(u * 1.7) + _square_wave(v * 1.7)).remainder(2)
    if kind == "zigzagged":
        return _square_wave(v * 2.2 + 0.55 * ((u * 2.2).remainder(1) - 0.5).abs())
    if kind == "grid":
        return (
            torch.maximum(((u * 2.6).remainder(1) - 0.5).abs(), ((v * 2.6).remainder(1) - 0.5).abs()).gt(0.36).float()
        )
    if kind == "marbled":
        return (noise > 0.5).float()
    if kind == "spiralled":
        return _square_wave(torch.hypot(u, v) * 2.4 + torch.atan2(v, u) / (2 * math.pi))
    if kind == "speckled":
        return (fine > 0.66).float()
    return torch.zeros_like(u)


def _rgb(r, g, b):
    return torch.tensor([r, g, b], dtype=torch.float32).view(1, 3, 1, 1)


def _mix(a, b, t):
    """a where t = 0, b where t = 1; t [n, S, S], a and b broadcast to [n, 3, S, S]."""
    return a + (b - a) * t.unsqueeze(1)


def _backdrop(kind: str, x, y, tint, noise, fine, cells):
    """One kind of background for n scenes; x right, y up in -1..1; noise, fine, cells [n, S, S]; -> [n, 3, S, S]."""
    shift = tint[:, 0].view(-1, 1, 1) * 2  # moves the pattern from picture to picture
    if kind == "plain":
        return _mix(tint.view(-1, 3, 1, 1), tint.view(-1, 3, 1, 1) * 0.8, noise)
    if kind == "grass":
        return _mix(_rgb(0.25, 0.55, 0.15), _rgb(0.45, 0.75, 0.25), fine * 0.8 + 0.2 * noise)
    if kind == "sand":
        return _mix(_rgb(0.88, 0.78, 0.55), _rgb(0.75, 0.62, 0.40), 0.5 * fine + 0.5 * noise)
    if kind == "sea":
        waves = torch.sin((y * 9 + 0.6 * torch.sin(x * 5 + shift * 5) + shift) * 2)
        return _mix(_rgb(0.05, 0.30, 0.50), _rgb(0.25, 0.62, 0.75), 0.5 + 0.5 * waves)
    if kind == "sky":
        blue = _mix(_rgb(0.40, 0.65, 0.95), _rgb(0.70, 0.85, 1.0), (1 - y) / 2)
        return _mix(blue, _rgb(1, 1, 1), ((noise - 0.55) * 5).clamp(0, 1))
    if kind == "night":
        return _mix(
            _mix(_rgb(0.02, 0.02, 0.12), _rgb(0.10, 0.08, 0.28), (1 - y) / 2), _rgb(1, 1, 0.8), (fine > 0.985).float()
        )
    if kind == "snow":
        return _mix(_mix(_rgb(0.90, 0.93, 0.98), _rgb(0.75, 0.80, 0.90), noise), _rgb(1, 1, 1), (fine > 0.9).float())
    if kind == "brick":
        row = (y * 4 + shift).floor()
        mortar = ((y * 4 + shift).remainder(1) < 0.16) | ((x * 2.2 + row * 0.5).remainder(1) < 0.08)
        return _mix(_mix(_rgb(0.62, 0.28, 0.20), _rgb(0.50, 0.20, 0.15), cells), _rgb(0.75, 0.72, 0.68), mortar.float())
    if kind == "forest":
        trunk = ((x * 3.2 + shift * 3 + 0.15 * noise).remainder(1) < 0.3).float() * (y < 0.45).float()
        return _mix(_mix(_rgb(0.06, 0.25, 0.10), _rgb(0.15, 0.42, 0.15), fine), _rgb(0.22, 0.14, 0.08), trunk)
    if kind == "city":
        column = (x * 2.5 + shift * 3).floor()
        roof = 0.25 + 0.45 * torch.sin(column * 12.9 + shift * 7)
        lit = (((x * 7.5 + shift * 9).remainder(1) < 0.5) & ((y * 5).remainder(1) < 0.5)).float()
        tower = _mix(_rgb(0.40, 0.42, 0.48), _rgb(0.85, 0.80, 0.50), lit)
        return _mix(_rgb(0.72, 0.78, 0.85), tower, (y < roof).float())
    if kind == "mountain":
        ridge = 0.55 - 0.9 * ((x * 0.9 + shift).remainder(1) - 0.5).abs() * 2 + 0.15 * noise
        rock = _mix(_rgb(0.45, 0.42, 0.45), _rgb(0.95, 0.97, 1.0), (y > ridge - 0.3).float())
        return _mix(_rgb(0.60, 0.75, 0.92), rock, (y < ridge).float())
    if kind == "room":
        wall = _mix(_rgb(0.90, 0.84, 0.72), _rgb(0.82, 0.74, 0.62), ((x * 4 + shift * 3).remainder(1) < 0.15).float())
        return _mix(wall, _rgb(0.48, 0.32, 0.20), (y < -0.35).float())
    raise ValueError(kind)


def draw(scenes: Scenes, generator: torch.Generator, size: int = 64) -> np.ndarray:
    """Draw a batch of scenes.

    Returns uint8 [N, 3, size, size]. The same scenes and generator state give the same pictures.
    """
    n = len(scenes)
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    x, y = axis.view(1, 1, -1).expand(1, size, size), (-axis).view(1, -1, 1).expand(1, size, size)
    noise = _smooth_noise(n, 7, size, generator)
    cells = _smooth_noise(n, 14, size, generator)
    fine = torch.rand(n, size // 2, size // 2, generator=generator).repeat_interleave(2, 1).repeat_interleave(2, 2)
    tint = 0.35 + 0.6 * torch.rand(n, 3, generator=generator)

    picture = torch.empty(n, 3, size, size)
    for i in scenes.background.unique().tolist():
        rows = scenes.background == i
        picture[rows] = _backdrop(BACKGROUNDS[i], x, y, tint[rows], noise[rows], fine[rows], cells[rows]).expand(
            -1, 3, -1, -1
        )

    # local coordinates; two or four copies come from folding the plane
    scale = scenes.size.view(-1, 1, 1)
    count = scenes.count.view(-1, 1, 1)
    px, py = (x - scenes.x.view(-1, 1, 1)) / scale, (y - scenes.y.view(-1, 1, 1)) / scale
    shrink = torch.where(count > 0, 0.52, 1.0)
    px = torch.where(count > 0, px - torch.where(px < 0, -0.55, 0.55), px) / shrink
    py = torch.where(count > 1, py - torch.where(py < 0, -0.55, 0.55), py) / shrink
    cos, sin = torch.cos(scenes.angle).view(-1, 1, 1), torch.sin(scenes.angle).view(-1, 1, 1)
    u, v = cos * px + sin * py, -sin * px + cos * py
    pixel = 2 / size / (scale * shrink)

    palette = torch.tensor(list(COLOURS.values()))
    marks = torch.empty(n, size, size)
    for i in scenes.texture.unique().tolist():
        rows = (scenes.texture == i).nonzero()[:, 0]
        marks[rows] = texture_marks(TEXTURES[i], u[rows], v[rows], noise[rows], fine[rows])
    paint = _mix(palette[scenes.colour].view(n, 3, 1, 1), palette[scenes.pattern].view(n, 3, 1, 1), marks)
    accent = palette[scenes.accent].view(n, 3, 1, 1)
    body, second, dark = (torch.full((n, size, size), FAR) for _ in range(3))
    for i in scenes.shape.unique().tolist():
        rows = (scenes.shape == i).nonzero()[:, 0]
        parts = SHAPES[SHAPE_NAMES[i]](u[rows], v[rows], scenes.form[rows])
        for target, part in zip((body, second, dark), parts, strict=True):
            if part is not None:
                target[rows] = part
    shown = scenes.visible.view(-1, 1, 1)

    def cover(distance):
        return (0.5 - distance / pixel).clamp(0, 1) * shown

    outline = _union(body, second, dark)
    picture = _mix(picture, picture * 0.35, (0.5 - (outline - 1.5 * pixel) / pixel).clamp(0, 1) * shown * 0.8)
    picture = _mix(picture, paint, cover(body))
    picture = _mix(picture, accent, cover(second))
    picture = _mix(picture, _rgb(0.08, 0.08, 0.10), cover(dark))

    sketch = (scenes.style == STYLES.index("sketch")).nonzero()[:, 0]
    if len(sketch):
        lines = cover(_union(*(d.abs() - 1.1 * pixel for d in (body, second, dark))))[sketch]
        picture[sketch] = _mix(
            _rgb(0.97, 0.97, 0.95) - 0.04 * noise[sketch].unsqueeze(1), _rgb(0.12, 0.12, 0.15), lines
        )
    painting = (scenes.style == STYLES.index("painting")).nonzero()[:, 0]
    if len(painting):  # few tones, blurred, the colour channels exchanged
        blurred = torch.nn.functional.avg_pool2d(picture[painting], 3, 1, 1, count_include_pad=False)
        picture[painting] = ((blurred * 5 + cells[painting].unsqueeze(1) * 0.9).floor() / 5).roll(1, dims=1)

    picture = picture * scenes.light.view(-1, 1, 1, 1)
    grain = torch.randn(n, 1, size, size, generator=generator)
    picture = picture + scenes.noise.view(-1, 1, 1, 1) * grain
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
