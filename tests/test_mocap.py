"""Recordings of every format become the same joints; files that are not what they seem are refused in one line."""

import json

import numpy as np
import pytest

from edged.camera import motion, puppet, viewpoint
from edged.errors import MissingInput, PackageError
from edged.train import bvh, deepmimic, expmap, mocap, retarget, takes
from pose_fixtures import DATA, needs

BVH = """HIERARCHY
ROOT Hips
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT Spine
  {
    OFFSET 0 50 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    End Site
    {
      OFFSET 0 10 0
    }
  }
  JOINT Leg
  {
    OFFSET 10 -5 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    JOINT Foot
    {
      OFFSET 0 -40 0
      CHANNELS 3 Zrotation Xrotation Yrotation
      End Site
      {
        OFFSET 0 0 10
      }
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.05
0 90 0  0 0 0  0 0 0  0 0 0  0 0 0
100 90 0  0 0 90  0 0 0  0 90 0  0 0 0
"""

ASF = """# made up
:version 1.10
:units
  mass 1.0
  length 0.45
  angle deg
:root
   order TX TY TZ RX RY RZ
   axis XYZ
   position 0 0 0
   orientation 0 0 0
:bonedata
  begin
     id 1
     name lfemur
     direction 0 -1 0
     length 8
     axis 0 0 20  XYZ
    dof rx ry rz
    limits (-160.0 20.0)
           (-70.0 70.0)
           (-60.0 70.0)
  end
  begin
     id 2
     name ltibia
     direction 0 -1 0
     length 7
     axis 0 0 0  XYZ
    dof rx
  end
:hierarchy
  begin
    root lfemur
    lfemur ltibia
  end
"""

AMC = """#!a trial
:FULLY-SPECIFIED
:DEGREES
1
root 0 15 0 0 0 0
lfemur 0 0 0
ltibia 0
2
root 0 15 0 0 0 0
lfemur 0 0 0
ltibia 90
"""

NAMES = ("hips", "chest", "neck", "head", "l_shoulder", "l_elbow", "l_wrist", "r_shoulder", "r_elbow", "r_wrist",
         "l_hip", "l_knee", "l_ankle", "r_hip", "r_knee", "r_ankle")


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def walk(seed=1, label="walking"):
    rng = np.random.default_rng(seed)
    return motion.act(rng, label, viewpoint.random_view(rng)).people[0]


def recording(seed=1):
    """A generated walk with the joints that a recording system names."""
    placed = walk(seed)
    p = puppet
    rows = {"neck": p.NECK, "l_shoulder": p.L_SHOULDER, "l_elbow": p.L_ELBOW, "l_wrist": p.L_WRIST,
            "r_shoulder": p.R_SHOULDER, "r_elbow": p.R_ELBOW, "r_wrist": p.R_WRIST, "l_hip": p.L_HIP,
            "l_knee": p.L_KNEE, "l_ankle": p.L_ANKLE, "r_hip": p.R_HIP, "r_knee": p.R_KNEE, "r_ankle": p.R_ANKLE}
    ears = placed[:, (p.R_EAR, p.L_EAR)].mean(1)
    middle = placed[:, (p.R_HIP, p.L_HIP)].mean(1)
    made = {name: placed[:, joint] for name, joint in rows.items()}
    made.update(head=ears, hips=middle, chest=(middle + placed[:, p.NECK]) / 2)
    return placed, mocap.Motion(np.stack([made[name] for name in NAMES], 1), NAMES, 30.0)


def test_bvh_offsets_are_turned_by_channels_in_their_order(tmp_path):
    path = tmp_path / "a.bvh"
    path.write_text(BVH)
    found = bvh.read(path)
    assert found.joints == ("Hips", "Spine", "Leg", "Foot") and found.fps == pytest.approx(20)
    # cm, y up -> metres, z up: (x, y, z) becomes (x, -z, y)
    assert np.allclose(found.positions[0], [[0, 0, .9], [0, 0, 1.4], [.1, 0, .85], [.1, 0, .45]])
    # Frame 2: turned by 90 degrees about y, x becomes -z, the leg another 90 about its own x: -y becomes -z, then -x.
    assert np.allclose(found.positions[1], [[1, 0, .9], [1, 0, 1.4], [1, .1, .85], [.6, .1, .85]], atol=1e-9)


@pytest.mark.parametrize("old, new", [
    ("HIERARCHY", "HIERARCH"), ("JOINT Spine", "BONE Spine"), ("OFFSET 0 50 0", "OFFSET 0 fifty 0"),
    ("OFFSET 0 50 0", "OFFSET 0 nan 0"), ("CHANNELS 3", "CHANNELS 4"), ("Zrotation", "Wrotation"),
    ("Frames: 2", "Frames: 3"), ("Frames: 2", "Frames: two"), ("Frames: 2", "Frames: 0"),
    ("Frame Time: 0.05", "Frame Time: 0"), ("Frame Time: 0.05", "Frame Time: 1e-9"), ("100 90 0", "100 1e9 0"),
    ("MOTION", ""), ("End Site", "End"), ("JOINT Leg", "JOINT Spine"),
])
def test_a_damaged_bvh_is_refused_in_one_line(tmp_path, old, new):
    path = tmp_path / "a.bvh"
    path.write_text(BVH.replace(old, new))
    with pytest.raises(PackageError) as error:
        bvh.read(path)
    assert str(path) in one_line(error)


@pytest.mark.parametrize("length", [0, 20, 200, len(BVH) - 40])
def test_a_bvh_that_ends_early_is_refused(tmp_path, length):
    path = tmp_path / "a.bvh"
    path.write_text(BVH[:length])
    with pytest.raises(PackageError):
        bvh.read(path)


def acclaim_files(folder, asf=ASF, amc=AMC):
    (folder / "07.asf").write_text(asf)
    (folder / "07_01.amc").write_text(amc)
    return folder / "07_01.amc"


def test_an_acclaim_joint_is_the_far_end_of_its_bone(tmp_path):
    found = mocap.read(acclaim_files(tmp_path))
    unit = 0.0254 / 0.45
    assert found.joints == ("root", "lfemur", "ltibia") and found.fps == 120
    assert np.allclose(found.positions[0], np.array([[0, 0, 15], [0, 0, 7], [0, 0, 0]]) * unit)
    # The knee bends by 90 degrees about x: -y becomes -z, which is +y with z up.
    assert np.allclose(found.positions[1], np.array([[0, 0, 15], [0, 0, 7], [0, 7, 7]]) * unit)


def test_an_acclaim_bone_turns_in_the_frame_of_its_own_axis(tmp_path):
    amc = AMC.replace("lfemur 0 0 0\nltibia 90", "lfemur 90 0 0\nltibia 0")
    found = mocap.read(acclaim_files(tmp_path, amc=amc))
    turn = np.radians(20)
    # -y in the axis frame (turned by 20 about z) is (-sin 20, -cos 20); 90 about x takes its y part to z.
    local = np.array([-np.sin(turn), 0, -np.cos(turn)])
    want = 8 * np.array([np.cos(turn) * local[0], np.sin(turn) * local[0], local[2]]) * 0.0254 / 0.45
    knee = found.positions[1, 1] - found.positions[1, 0]
    assert np.allclose(knee, [want[0], -want[2], want[1]])


@pytest.mark.parametrize("part, old, new", [
    ("asf", "angle deg", "angle rad"), ("asf", "length 0.45", "length 0"), ("asf", "axis XYZ", "axis ZYX"),
    ("asf", "position 0 0 0", "position 1 0 0"), ("asf", "dof rx ry rz", "dof rx ry tz"), ("asf", "id 2", "end"),
    ("asf", "    lfemur ltibia\n", ""), ("asf", "root lfemur", "root tail"), ("asf", "name ltibia", "name lfemur"),
    ("asf", ":hierarchy", ":skin"), ("asf", "direction 0 -1 0", "direction 0 -1"),
    ("amc", ":DEGREES", ":RADIANS"), ("amc", "ltibia 90", "ltibia 90 1"), ("amc", "ltibia 90\n", ""),
    ("amc", "2\nroot", "3\nroot"), ("amc", "ltibia 90", "rtibia 90"), ("amc", "ltibia 90", "ltibia inf"),
])
def test_a_damaged_acclaim_pair_is_refused_in_one_line(tmp_path, part, old, new):
    given = {"asf": ASF, "amc": AMC}
    assert old in given[part]
    given[part] = given[part].replace(old, new)
    with pytest.raises(PackageError) as error:
        mocap.read(acclaim_files(tmp_path, **given))
    one_line(error)


def humanoid_row(duration=0.05, knee=0.0):
    still = [1.0, 0, 0, 0]
    return [duration, 0, 0.9, 0] + still * 4 + [knee] + still * 2 + [0.0] + still + [0.0] + still * 2 + [0.0]


def test_deepmimic_frames_bend_knees_backwards(tmp_path):
    path = tmp_path / "humanoid3d_x.txt"
    path.write_text(json.dumps({"Loop": "none", "Frames": [humanoid_row(), humanoid_row(0.0, -np.pi / 2)]}))
    found = mocap.read(path)
    at = {name: place for place, name in enumerate(found.joints)}
    assert found.fps == pytest.approx(20) and len(found.positions) == 2
    straight, bent = found.positions
    assert straight[at["r_ankle"], 2] == pytest.approx(0.9 - 0.422 - 0.41)
    assert straight[at["r_ankle"], 1] == pytest.approx(-0.085)           # z to the right is -y here
    assert bent[at["r_ankle"], 0] == pytest.approx(-0.41) and bent[at["r_ankle"], 2] == pytest.approx(0.9 - 0.422)


@pytest.mark.parametrize("frames", [
    [], [humanoid_row()], [humanoid_row()[:-1]] * 2, [humanoid_row(0.0)] * 2, [humanoid_row(float("nan"))] * 2, "text",
    [humanoid_row()[:4] + [0.0] * 40] * 2,
])
def test_a_damaged_deepmimic_file_is_refused_in_one_line(tmp_path, frames):
    path = tmp_path / "humanoid3d_x.txt"
    path.write_text(json.dumps({"Frames": frames}))
    with pytest.raises(PackageError) as error:
        deepmimic.read(path)
    one_line(error)


def test_exponential_maps_turn_the_rest_pose(tmp_path):
    values = np.zeros((2, 117))
    values[:, 1] = 16.7
    values[1, 5] = np.pi / 2       # the root's turn about z (y up), as a row's turn: x becomes -y
    path = tmp_path / "train_walking_1.txt"
    path.write_text("\n".join(",".join(str(x) for x in row) for row in values))
    found = mocap.read(path)
    at = {name: place for place, name in enumerate(found.joints)}
    rest, turned = found.positions
    assert len(found.joints) == 38
    assert rest[at["l_wrist"], 0] > 0.5 and rest[at["head_end"], 2] > rest[at["l_shoulder"], 2]
    assert turned[at["l_wrist"], 2] < rest[at["l_wrist"], 2] - 0.4
    moved, body = retarget.moves(found)
    assert body.thigh == pytest.approx(body.shank, rel=0.1) and 1.5 < body.stature < 1.9


@pytest.mark.parametrize("text", ["", "1,2,3\n", ",".join(["0"] * 116 + ["x"]) + "\n", ",".join(["0"] * 117) + "\n"])
def test_a_damaged_exponential_map_is_refused(tmp_path, text):
    path = tmp_path / "a.txt"
    path.write_text(text)
    with pytest.raises(PackageError):
        expmap.read(path)


def positions_file(path, **changes):
    arrays = dict(positions=np.zeros((3, 2, 3), np.float32), joints=np.array(["a", "b"]), fps=np.float32(30))
    arrays["positions"][:, 1] = 1, 2, 3
    arrays.update(changes)
    np.savez(str(path), **{key: value for key, value in arrays.items() if value is not None})
    return path


def test_positions_are_turned_so_that_z_is_up(tmp_path):
    found = mocap.read(positions_file(tmp_path / "a.npz"))
    assert found.joints == ("a", "b") and np.allclose(found.positions[:, 1], [1, -3, 2])


@pytest.mark.parametrize("changes", [
    {"positions": None}, {"joints": None}, {"fps": None}, {"fps": np.zeros(2)}, {"fps": np.float32(0)},
    {"positions": np.zeros((3, 2, 3), int)}, {"positions": np.zeros((3, 2))}, {"positions": np.zeros((3, 3, 3))},
    {"positions": np.full((3, 2, 3), np.nan)}, {"joints": np.array(["a", "a"])}, {"positions": np.zeros((1, 2, 3))},
    {"joints": np.array([{}, "b"], dtype=object)}, {"positions": np.full((3, 2, 3), [[[0.]], [[1e3]], [[0.]]])},
])
def test_other_arrays_are_refused(tmp_path, changes):
    with pytest.raises(PackageError) as error:
        mocap.read(positions_file(tmp_path / "a.npz", **changes))
    assert one_line(error)


def test_what_is_missing_or_of_no_format_is_said(tmp_path):
    with pytest.raises(MissingInput):
        mocap.read(tmp_path / "none.bvh")
    with pytest.raises(MissingInput):
        mocap.read(tmp_path / "none.npz")
    with pytest.raises(PackageError):
        mocap.read(tmp_path / "none.fbx")
    (tmp_path / "a.bvh").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PackageError):
        mocap.read(tmp_path / "a.bvh")


def lengths(placed):
    return np.stack([np.linalg.norm(placed[:, a] - placed[:, b], axis=-1) for a, b in puppet.BONES], 1)


def test_moves_of_joints_give_the_same_joints_again():
    for label in ("walking", "sitting", "falling", "waving"):
        placed = walk(3, label)
        moved, body = retarget.of_joints(placed)
        assert np.abs(retarget.joints(moved, body) - placed).max() < 0.002, label


def test_a_recording_becomes_the_18_joints_of_whoever_was_recorded():
    placed, found = recording()
    moved, body = retarget.moves(found)
    again = retarget.joints(moved, body)
    limbs = [joint for joint in range(18) if joint not in (0, 14, 15, 16, 17)]
    assert np.abs(again[:, limbs] - placed[:, limbs]).max() < 0.01
    assert np.abs(again - placed).max() < 0.12          # the face is made up from the head's place alone
    ahead = again[:, puppet.NOSE] - again[:, (puppet.R_EAR, puppet.L_EAR)].mean(1)
    across = again[:, puppet.L_HIP] - again[:, puppet.R_HIP]
    assert (np.cross(across, ahead)[:, 2] < 0).all()    # it looks where the body does, not behind


def test_another_body_keeps_its_own_bones_and_its_feet_on_the_ground():
    placed, found = recording(2)
    moved, own = retarget.moves(found)
    for seed in range(4):
        body = puppet.random_body(np.random.default_rng(seed))
        other = retarget.joints(retarget.fitted(moved, own, body), body)
        spread = np.ptp(lengths(other), axis=0)
        assert spread[[bone for bone, pair in enumerate(puppet.BONES) if pair not in ((1, 8), (1, 11))]].max() < 1e-9
        low = other[..., 2].min(1)
        assert low.min() > 0.02 and np.median(low) < 1.6 * body.ankle


def test_toy_proportions_walk_as_an_adult_does():
    placed, found = recording(4)
    toy = found.positions.copy()
    names = list(found.joints)
    for joint in ("l_knee", "l_ankle", "r_knee", "r_ankle", "l_hip", "r_hip"):  # legs half as long, the trunk whole
        toy[:, names.index(joint)] = 0.5 * toy[:, names.index(joint)] + 0.5 * toy[:, names.index("hips")]
    moved, own = retarget.moves(mocap.Motion(toy, found.joints, 30.0))
    whole, _ = retarget.moves(found)
    assert np.abs(moved.ways - whole.ways)[:, :11].max() < 0.35
    body = puppet.random_body(np.random.default_rng(0))
    fitted = retarget.fitted(moved, own, body)
    assert np.allclose(lengths(retarget.joints(fitted, body))[:, 7], body.thigh)


def test_mirrored_twice_is_as_before_and_once_swaps_the_sides():
    moved, body = retarget.of_joints(walk(5))
    once = retarget.mirrored(moved)
    assert np.allclose(retarget.mirrored(once).ways, moved.ways)
    straight, swapped = retarget.joints(moved, body), retarget.joints(once, body)
    assert np.allclose(swapped[:, puppet.L_WRIST], straight[:, puppet.R_WRIST] * [1, -1, 1], atol=1e-9)
    assert np.allclose(swapped[:, puppet.R_EYE], straight[:, puppet.L_EYE] * [1, -1, 1], atol=1e-6)


def test_resampling_keeps_the_seconds_and_the_length_of_bones():
    moved, body = retarget.of_joints(walk(6))
    slow = retarget.at_rate(moved, 120.0)
    assert abs(len(slow.pelvis) - len(moved.pelvis) / 4) <= 1
    assert np.allclose(np.linalg.norm(slow.ways, axis=-1), 1)
    assert np.allclose(slow.pelvis[1], moved.pelvis[4])


def test_joints_of_unknown_names_are_refused():
    placed, found = recording()
    with pytest.raises(PackageError) as error:
        retarget.moves(found._replace(joints=tuple("x{}".format(place) for place in range(len(found.joints)))))
    one_line(error)
    with pytest.raises(PackageError):
        retarget.moves(found._replace(joints=tuple(name.replace("head", "hat") for name in found.joints)))


@pytest.mark.parametrize("source", sorted(takes.SOURCES))
def test_real_recordings_stand_on_the_ground_with_bones_of_people(source):
    folder = needs(takes.SOURCES[source].folder)
    from edged.train.corpus import segment
    for take in [one for one in takes.TAKES if one.source == source][:6]:
        found = segment(take, DATA)
        placed = retarget.joints(found.moves, found.own)
        assert np.isfinite(placed).all() and (folder / take.file).exists()
        low = placed[..., 2].min(1)
        assert -0.12 < low.min() < 0.3 and placed[..., 2].max() < 3.0, found.name
        step = np.linalg.norm(np.diff(placed, axis=0), axis=-1).max()
        assert step < 1.0, found.name       # 30 m/s: a frame is missing, or a turn jumps
