"""Surface normals."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from transframer.data.world.forms import FACES, at_points, rays_of, take
from transframer.data.world.poses import Poses
from transframer.data.world.scene import Scenes
from transframer.data.world.tracing import FIRST_OBJECT, GROUND, Grid, indices, instance_of, w_of


def normal_forms(scenes: Scenes, poses: Poses) -> Float[Tensor, "3 4 s faces f"]:
    """Outward normals of the ground and of each object's faces, in the camera's axes and of any length.

    As forms of (1, x, y, w), times w on the curved faces, float32. The ground has one normal, at face 0.
    """
    camera = poses.world_from_camera
    cosine, sine = poses.turn.unbind(-1)
    zero, one = torch.zeros_like(cosine), torch.ones_like(cosine)
    rows = [torch.stack(row, -1) for row in ((cosine, -sine, zero), (sine, cosine, zero), (zero, zero, one))]
    world_from_object = torch.stack(rows, -2)  # b t k 3 3
    eye = camera[:, :, None, :3, 3] - poses.position
    points = torch.cat([rays_of(poses)[:, :, None].expand_as(world_from_object), eye[..., None]], -1)
    points = world_from_object.mT @ points  # of (1, x, y, w), times w, in the object's axes: b t k 3 4
    q2, q1 = (q[:, None, :, None] for q in scenes.quadric[..., :2].unbind(-1))
    # half the gradient of the quadric; a flat face shows on the camera's side
    curved = points.clone()
    curved[..., 2, :] = q2 * points[..., 2, :] + 0.5 * q1 * points.new_tensor([0.0, 0.0, 0.0, 1.0])
    flat = torch.diag_embed(points[..., 3].sign())[..., None] * points.new_tensor([1.0, 0.0, 0.0, 0.0])
    normals = torch.stack([curved, *flat.unbind(3)], 3)  # b t k faces 3 4
    ground = torch.zeros_like(normals[:, :, :1])
    ground[..., 2, 0] = 1
    camera_from_object = camera[:, :, None, :3, :3].mT @ world_from_object
    turn = torch.cat([camera[:, :, None, :3, :3].mT, camera_from_object], 2)  # b t s 3 3
    normals = turn[..., None, :, :] @ torch.cat([ground, normals], 2)
    return normals.flatten(0, 1).permute(3, 4, 1, 2, 0).float().contiguous()


def normals_of(
    forms: Float[Tensor, "3 4 s faces f"], grid: Grid, key: Int[Tensor, "f h w"]
) -> Float[Tensor, "f 3 h w"]:
    """Unit normals in the camera's axes, at the pixels' centres; 0 in the sky.

    Args:
        forms: of `normal_forms`.
        grid: the pixels' centres.
        key: what they see.
    """
    normals = grid.of_frames(forms[:, 0, 0, 0]) * instance_of(key).clamp_(max=1).float()
    index = indices((key & 7 * FACES).ge(FIRST_OBJECT * FACES))
    x, y, frame = (grid.of_rays(part, index) for part in (grid.x, grid.y, grid.frame))
    place = grid.place(index)
    key = key.flatten().index_select(0, place)
    column = ((instance_of(key) - GROUND) * FACES + (key & 3)) * forms.shape[-1] + frame
    points = at_points(take(forms.flatten(2), column), x, y, w_of(key))
    normals.view(3, -1).scatter_(1, place.expand(3, -1), F.normalize(points, dim=0))
    return normals.transpose(0, 1)
