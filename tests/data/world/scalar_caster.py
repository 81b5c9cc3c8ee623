"""A second opinion on what one ray meets: textbook formulas in float64, one ray and one shape at a time."""

import math

import numpy as np

from transframer.data.world.scene import MAX_DEPTH_M, OBJECT_CLASSES


def _roots(a, b, c):
    if abs(a) < 1e-12 or b * b - 4 * a * c < 0:
        return []
    root = math.sqrt(b * b - 4 * a * c)
    return [(-b - root) / (2 * a), (-b + root) / (2 * a)]


def _sphere(o, d, half, quadric):
    return _roots(d @ d, 2 * o @ d, o @ o + quadric[2])


def _box(o, d, half, quadric):
    hits = []
    for axis in range(3):
        for side in (-half[axis], half[axis]):
            t = (side - o[axis]) / d[axis]
            p = o + t * d
            if all(abs(p[other]) <= half[other] for other in range(3) if other != axis):
                hits.append(t)
    return hits


def _disc(o, d, z, radius):
    t = (z - o[2]) / d[2]
    p = o + t * d
    return [t] if p[0] ** 2 + p[1] ** 2 <= radius**2 else []


def _cylinder(o, d, half, quadric):
    radius, top = math.sqrt(-quadric[2]), half[2]
    side = _roots(d[:2] @ d[:2], 2 * o[:2] @ d[:2], o[:2] @ o[:2] - radius**2)
    side = [t for t in side if abs(o[2] + t * d[2]) <= top]
    return side + _disc(o, d, top, radius) + _disc(o, d, -top, radius)


def _cone(o, d, half, quadric):
    # radius at height z: slope * (top - z)
    slope, top = math.sqrt(-quadric[0]), half[2]
    to_apex = top - o[2]
    a = d[:2] @ d[:2] - slope**2 * d[2] ** 2
    b = 2 * (o[:2] @ d[:2] + slope**2 * to_apex * d[2])
    c = o[:2] @ o[:2] - slope**2 * to_apex**2
    side = [t for t in _roots(a, b, c) if abs(o[2] + t * d[2]) <= top]
    return side + _disc(o, d, -top, slope * 2 * top)


_SHAPES = dict(zip(OBJECT_CLASSES, (_sphere, _box, _cylinder, _cone), strict=True))


def nearest(scenes, poses, scene, frame, u, v):
    """Depth and instance at the pixel coordinates (u, v)."""
    camera = poses.world_from_camera[scene, frame].numpy()
    d = camera[:3, :3] @ np.linalg.inv(poses.intrinsics[scene, frame].numpy()) @ np.array([u, v, 1.0])
    o = camera[:3, 3]
    best = (0.0, 0)
    ground = -o[2] / d[2]
    if 0 < ground < MAX_DEPTH_M:
        best = (ground, 1)
    for slot in range(int(scenes.present[scene].sum())):
        cosine, sine = poses.turn[scene, frame, slot].numpy()
        world_from_object = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
        local = world_from_object.T @ (o - poses.position[scene, frame, slot].numpy())
        caster = _SHAPES[OBJECT_CLASSES[scenes.shape[scene, slot]]]
        half, quadric = scenes.half_extent[scene, slot].numpy(), scenes.quadric[scene, slot].numpy()
        for t in caster(local, world_from_object.T @ d, half, quadric):
            if t > 0 and (best[1] == 0 or t < best[0]):
                best = (t, slot + 2)
    return best
