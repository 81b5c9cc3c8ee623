"""What the frames show, as polynomials of the place in the image.

With x and y counted in pixels from the optical axis, the ray through a pixel is linear in (x, y). Along a
ray, let w = 1 / depth. Then a plane is met at a w linear in (x, y), a quadric at linear +- sqrt(quadratic)
of (x, y), so what a ray meets takes a few sums and no division. The coefficients are worked out here once per
frame and object, in float64; evaluating them in float32 loses little, as large terms have already cancelled.

A linear form has the coefficients of 1, x, y; a quadratic one of 1, x, y, xx, xy, yy; of points in space, in
homogeneous coordinates divided by depth, of 1, x, y, w.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from transframer.data.world.poses import Poses
from transframer.data.world.scene import Scenes

NEAR_M = 0.1
AMBIENT, DIFFUSE = 0.5, 0.6
FACES = 4
QUADRIC_ROWS, BODY_LOWERS, SHADOW_LOWERS = 9, 2, 1
PER_PIXEL = 14  # row of `Frames.views`
_NEVER = 1e6  # 1 / depth that no surface reaches


@dataclass(frozen=True)
class Frames:
    """f frames ready to be rendered; k = MAX_OBJECTS. The last dimensions count objects and frames.

    Attributes:
        shape: index into OBJECT_CLASSES.
        box: the objects that are boxes; the others are round.
        bounds: left, right, top, bottom of what an object covers, from the axis in pixels; -inf if absent.
        shadow_bounds: the same of its shadow on the ground.
        body: where rays enter and leave an object; see `_body`.
        shadow: the same for rays from the ground to the sun; see `_shadow`.
        paint: of each face of each object, what its colour follows from; see `_paint`.
        views: linear forms of the ground's w, of (phase w) of two waves on the ground and of the height of a
            ray's direction; the waves' phases; a direction's change per pixel; RGB of the ground where its
            pattern is low, and the pattern's contrast; RGB of the horizon, and what the zenith adds to it.
    """

    shape: Int[Tensor, "k f"]
    box: Bool[Tensor, "k f"]
    bounds: Float[Tensor, "4 k f"]
    shadow_bounds: Float[Tensor, "4 k f"]
    body: Float[Tensor, "36 k f"]
    shadow: Float[Tensor, "27 k f"]
    paint: Float[Tensor, "28 faces k f"]
    views: Float[Tensor, "27 f"]

    def __len__(self) -> int:
        return self.views.shape[-1]

    def __getitem__(self, frames: slice | Int[Tensor, " g"]) -> Frames:
        tables = (getattr(self, f.name) for f in fields(self))
        if isinstance(frames, slice):
            return Frames(*(table[..., frames].contiguous() for table in tables))
        return Frames(*(take(table, frames) for table in tables))


def take(table: Shaped[Tensor, "*rows n"], index: Int[Tensor, "*places"]) -> Shaped[Tensor, "*rows *places"]:
    """`table[..., index]`, by `index_select` over a matrix, which is several times faster on a CPU."""
    flat = table.reshape(-1, table.shape[-1]).index_select(1, index.flatten())
    return flat.view(*table.shape[:-1], *index.shape)


def linear(forms: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Linear forms [r, 3, ...] at (x, y); on a grid x is a row and y a column, and most work is one sum."""
    constant, along_x, along_y = forms.unbind(1)
    return (constant + along_y * y) + along_x * x


def quadratic(form: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """A quadratic form [6, ...] at (x, y)."""
    constant, along_x, along_y, xx, xy, yy = form.unbind()
    slope = (along_x + xy * y) + xx * x
    return slope.mul_(x).add_(constant + (along_y + yy * y) * y)


def at_points(forms: Float[Tensor, "r 4 m"], x: Tensor, y: Tensor, w: Tensor) -> Float[Tensor, "r m"]:
    """Forms of (1, x, y, w), each of m points with its own."""
    constant, along_x, along_y, along_w = forms.unbind(1)
    return (along_x * x).add_(along_y * y).add_(along_w * w).add_(constant)


def rays_of(poses: Poses) -> Float[Tensor, "b t 3 3"]:
    """Linear forms of the direction of every pixel's ray in the world; 1 along the optical axis."""
    right, down, forward = poses.world_from_camera[..., :3, :3].unbind(-1)
    focal = poses.intrinsics[..., :1, 0]
    return torch.stack([forward, right / focal, down / focal], -1)


def frames_of(scenes: Scenes, poses: Poses) -> Frames:
    """Every pose of every scene as one list of frames, scene by scene."""
    b, t, k = poses.turn.shape[:3]
    rays, place = rays_of(poses), poses.world_from_camera[..., :3, 3]
    ground = -rays[..., 2, :] / place[..., 2:]
    cosine, sine = poses.turn.unbind(-1)

    def turned(vector: Tensor) -> Tensor:  # into the objects' own axes: b t k 3 ... of b t k 3 ...
        x, y, z = vector.unbind(3)
        c, s = (turn.view(turn.shape + (1,) * (x.ndim - 3)) for turn in (cosine, sine))
        return torch.stack([c * x + s * y, c * y - s * x, z.expand_as(c * x)], 3)

    direction = turned(rays[:, :, None].expand(b, t, k, 3, 3))
    origin = turned(place[:, :, None] - poses.position)
    sun = turned(scenes.sun[:, None, None].expand(b, t, k, 3))
    box = (scenes.shape == 1)[:, None].expand(b, t, k)
    body, inside = _body(scenes, origin, direction)
    seen = scenes.present[:, None] & ~inside
    bounds = torch.where(seen[..., None, None], _bounds(scenes, poses), -torch.inf)

    def per_frame(x: Tensor) -> Tensor:  # b ... -> b t ...
        return x[:, None].expand(b, t, *x.shape[1:])

    def last(x: Tensor) -> Tensor:  # the frames go last, float32
        x = x.flatten(0, 1).movedim(0, -1)
        return (x.float() if x.is_floating_point() else x).contiguous()

    def of_objects(x: Tensor) -> Tensor:  # b t k ... -> ... k f
        return last(x.movedim(2, -1))

    waves = scenes.ground_waves[:, None]
    phases = (waves @ place[..., :2, None]).frac()
    sunny = (AMBIENT + DIFFUSE * scenes.sun[:, 2])[:, None]
    low, high = (scenes.ground_colours * sunny[..., None]).unbind(1)
    horizon, zenith = scenes.sky_colours.unbind(1)
    colours = per_frame(torch.cat([low, high - low, horizon, zenith - horizon], -1))
    forms = torch.cat([ground[..., None, :], waves @ rays[..., :2, :], rays[..., 2:, :]], -2)
    per_pixel = 1 / poses.intrinsics[..., :1, 0]
    return Frames(
        shape=of_objects(per_frame(scenes.shape)),
        box=of_objects(box),
        bounds=of_objects(bounds[:, :, :, 0]),
        shadow_bounds=of_objects(bounds[:, :, :, 1]),
        body=of_objects(body),
        shadow=of_objects(_shadow(scenes, origin, direction, sun, ground)),
        paint=of_objects(_paint(scenes, origin, direction, sun)),
        views=last(torch.cat([forms.flatten(-2), phases[..., 0], per_pixel, colours], -1)),
    )


def _product(p: Tensor, q: Tensor) -> Tensor:
    """The quadratic form that is the product of two linear ones."""
    (a, b, c), (d, e, f) = p.unbind(-1), q.unbind(-1)
    return torch.stack([a * d, a * e + b * d, a * f + c * d, b * e, b * f + c * e, c * f], -1)


def _solid(scenes: Scenes) -> tuple[Tensor, ...]:
    """Half extents [b 1 k 3 1] and the quadric's three coefficients [b 1 k 1] of each object."""
    return scenes.half_extent[:, None, ..., None], *scenes.quadric[:, None, ..., None].unbind(-2)


def _rows(centre: Tensor, spread: Tensor, planes: Tensor) -> Tensor:
    """The rows of a solid: of its quadric the square of `spread` and the `centre`, then of its planes.

    The planes [b t k axis kind 3] come as z, x, y: round solids take the rows to the end of z, boxes those
    from there on and all planes. Of an axis, first the bound from above, then those from below.
    """
    return torch.cat([spread, centre, planes[..., [2, 0, 1], :, :].flatten(-3)], -1)


def _body(scenes: Scenes, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of what the camera sees, as bounds of w, and whether the camera is inside the solid."""
    half, q2, q1, q0 = _solid(scenes)
    o, d = origin[..., None], direction
    # where the planes at +half and -half are met: from above they bound w only as seen from beyond them
    above, below = o > half, o < -half
    plus, minus = d / (half - o), -d / (half + o)
    never = d.new_tensor([_NEVER, 0.0, 0.0])
    upper = torch.where(above, plus, torch.where(below, minus, never))
    lowers = torch.where(above, minus, plus), torch.where(below, plus, minus)
    planes = torch.stack([upper, *lowers], -2)
    (ox, oy, oz), (dx, dy, dz) = o.unbind(3), d.unbind(3)
    a = _product(dx, dx) + _product(dy, dy) + q2 * _product(dz, dz)
    b = dx * ox + dy * oy + dz * (q2 * oz + 0.5 * q1)
    c = ox * ox + oy * oy + (q2 * oz + q1) * oz + q0
    inside = torch.where((scenes.shape == 1)[:, None], ~(above | below).any(3)[..., 0], c[..., 0] <= 0)
    centre = -b / c
    return _rows(centre, _product(centre, centre) - a / c, planes), inside


def _shadow(scenes: Scenes, origin: Tensor, direction: Tensor, sun: Tensor, ground: Tensor) -> Tensor:
    """The rows of what a ray from the ground towards the sun meets, as bounds of its length times w."""
    half, q2, q1, q0 = _solid(scenes)
    w = ground[:, :, None]  # b t 1 3
    start = direction + origin[..., None] * w[..., None, :]  # the point on the ground, times w
    s = sun.abs().clamp(min=1e-4).copysign(sun)[..., None]
    middle, span = -start / s, half / s.abs() * w[..., None, :]
    planes = torch.stack([middle + span, middle - span], -2)
    (x, y, z), (sx, sy, sz) = start.unbind(3), s.unbind(3)
    a = sx * sx + sy * sy + q2 * sz * sz
    b = x * sx + y * sy + sz * (q2 * z + 0.5 * q1 * w)
    c = _product(x, x) + _product(y, y) + q2 * _product(z, z) + _product(q1 * z + q0 * w, w.expand_as(z))
    centre = -b / a
    return _rows(centre, _product(centre, centre) - c / a, planes)


def _paint(scenes: Scenes, origin: Tensor, direction: Tensor, sun: Tensor) -> Float[Tensor, "b t k 28 faces"]:
    """The rows of each face's colour, the curved face first, then those across x, y, z.

    Of points times w: three coordinates of the pattern; the normal's share towards the sun and its length.
    Then the pattern's gain and offset, the body's RGB and what the pattern adds to it.
    """
    half, q2, q1, q0 = _solid(scenes)
    point = torch.cat([direction, origin[..., None]], -1)  # b t k 3 4
    x, y, z = point.unbind(3)
    w = point.new_tensor([0.0, 0.0, 0.0, 1.0])
    sx, sy, sz = sun[..., None].unbind(3)
    normal = x * sx + y * sy + (q2 * z + 0.5 * q1 * w) * sz
    # the quadric's gradient is as long as its points are far from the apex of a cone, else of one length
    slope = (-q2).clamp(min=0)
    cone = (slope * (1 + slope)).sqrt() * (half[..., 2, :] * w - z)
    length = torch.where((scenes.shape == 3)[:, None, :, None], cone, (-q0).clamp(min=0).sqrt() * w)
    across = (sun * origin.sign())[..., None] * w  # the faces that show are on the camera's side
    light = torch.cat([normal[..., None, :], across], 3)  # b t k faces 4
    length = torch.cat([length[..., None, :], w.expand_as(across)], 3)
    # dots are centred half-way out, so a flat face would have none if its own axis did not count in full
    unit = (point / half)[..., None, :, :].repeat(1, 1, 1, FACES, 1, 1)  # b t k faces 3 4
    stripes = 0.45 * (unit[..., 0, :] + unit[..., 1, :]) + 0.9 * unit[..., 2, :]
    stripes = torch.stack([stripes, 0 * stripes, 0 * stripes], -2)
    for axis in range(3):
        unit[..., axis + 1, axis, :] = 0.5 * w
    pattern = scenes.pattern[:, None, :, None, None, None]
    pattern = torch.where(pattern == 1, stripes, torch.where(pattern == 2, unit, 0.0))
    gain = point.new_tensor([[0.0, 0.0], [1.8, -0.4], [1.6, -3.2]])[scenes.pattern]
    body, mark = scenes.colours.unbind(-2)
    flat = torch.cat([gain, body, mark - body], -1)[:, None, :, None].expand(*pattern.shape[:4], 8)
    return torch.cat([pattern.flatten(-2), light, length, flat], -1).transpose(-1, -2)


def _bounds(scenes: Scenes, poses: Poses) -> Float[Tensor, "b t k 2 4"]:
    """Left, right, top, bottom of each object's box and of its shadow; the whole plane if partly behind."""
    signs = torch.tensor([-1.0, 1.0], dtype=torch.float64, device=poses.turn.device)
    x, y, z = (torch.cartesian_prod(signs, signs, signs) * scenes.half_extent[..., None, :]).unbind(-1)
    cosine, sine = poses.turn[..., None].unbind(-2)
    x, y, z = x[:, None], y[:, None], z[:, None].expand(*cosine.shape[:-1], 8)
    corners = (
        torch.stack([cosine * x - sine * y, sine * x + cosine * y, z], -1) + poses.position[..., None, :]
    )
    sun = scenes.sun[:, None, None, None]
    points = torch.stack([corners, corners - sun * (corners[..., 2:] / sun[..., 2:])], 3)  # b t k 2 8 3
    world = poses.world_from_camera[:, :, None, None]
    x, y, z = ((points - world[..., None, :3, 3]) @ world[..., :3, :3]).unbind(-1)
    scale = poses.intrinsics[..., None, :1, :1] / z
    u, v = x * scale, y * scale
    edges = torch.stack([u.amin(-1) - 0.01, u.amax(-1) + 0.01, v.amin(-1) - 0.01, v.amax(-1) + 0.01], -1)
    whole = edges.new_tensor([-1e6, 1e6, -1e6, 1e6])
    return torch.where((z < NEAR_M).any(-1, keepdim=True), whole, edges)
