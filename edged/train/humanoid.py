"""A jointed body for the physics engine, built from one person's lengths, and the ways into and out of it.

Every body's frame is x ahead, y left, z up when the person stands, limbs hanging along -z. Ball joints at spine, neck,
shoulders and hips, hinges at elbows, knees and ankles; springs towards a pose stand for the tone of muscles.
Shares of the mass: D. Winter, "Biomechanics and Motor Control of Human Movement", table 4.1; ranges of joints: those
of healthy adults, rounded.
"""

from typing import Any, Dict, Tuple

import numpy as np

from edged.camera.puppet import (
    JOINTS, L_ANKLE, L_EAR, L_ELBOW, L_EYE, L_HIP, L_KNEE, L_SHOULDER, L_WRIST, NECK, NOSE, R_ANKLE, R_EAR, R_ELBOW,
    R_EYE, R_HIP, R_KNEE, R_SHOULDER, R_WRIST, Body,
)  # fmt: skip
from edged.train.retarget import (
    AHEAD, HIPS, L_FOREARM, L_SHANK, L_THIGH, L_UPPER, R_FOREARM, R_SHANK, R_THIGH, R_UPPER, SHOULDERS, TRUNK, UP,
    Moves, unit,
)  # fmt: skip

STEPS = 16                       # of the simulation, in a frame
STEP_S = 1.0 / 30.0 / STEPS
# Stiffness in N m / rad and damping in N m s / rad of somebody who keeps a pose.
TONE = {"spine": (160.0, 9.0), "neck": (25.0, 1.6), "shoulder": (28.0, 2.2), "elbow": (16.0, 1.2), "hip": (130.0, 7.0),
        "knee": (90.0, 4.5), "ankle": (45.0, 1.2)}  # fmt: skip
_ARM_REST = (0.0, -45.0, 0.0)    # degrees about y: the middle of what a shoulder can do is ahead
_LEG_REST = (0.0, -35.0, 0.0)
SIDES = (("r", -1.0), ("l", 1.0))


def _numbers(*given: float) -> str:
    return " ".join("{:.5f}".format(one) for one in given)


def _capsule(start: Tuple[float, ...], end: Tuple[float, ...], radius: float, mass: float, name: str = "") -> str:
    return '<geom {}type="capsule" fromto="{}" size="{:.4f}" mass="{:.4f}"/>'.format(
        'name="{}" '.format(name) if name else "", _numbers(*(start + end)), radius, mass)


def model_text(body: Body, shoulders: np.ndarray) -> str:
    """The model as MJCF. shoulders (2, 3): where right and left are in the chest's frame, from the middle of the hips.
    """
    thick, kg = body.stature / 1.75, 23.0 * body.stature ** 2
    arms, legs = [], []
    for place, (side, sign) in enumerate(SIDES):
        arms.append("""
      <body name="{0}_upper" pos="{1}" euler="{2}">
        <joint name="{0}_shoulder" type="ball" range="0 125"/>
        {3}
        <body name="{0}_lower" pos="0 0 {4:.5f}">
          <joint name="{0}_elbow" axis="0 -1 0" range="0 150"/>
          {5}
        </body>
      </body>""".format(
            side, _numbers(*shoulders[place]), _numbers(*_ARM_REST),
            _capsule((0, 0, -0.03), (0, 0, -body.upper_arm), 0.042 * thick, 0.028 * kg), -body.upper_arm,
            _capsule((0, 0, 0), (0, 0, -body.forearm - 0.05), 0.038 * thick, 0.022 * kg)))
        sole = 0.03 * thick - body.ankle
        legs.append("""
    <body name="{0}_thigh" pos="0 {1:.5f} 0" euler="{2}">
      <joint name="{0}_hip" type="ball" range="0 100"/>
      {3}
      <body name="{0}_shank" pos="0 0 {4:.5f}">
        <joint name="{0}_knee" axis="0 1 0" range="0 150"/>
        {5}
        <body name="{0}_foot" pos="0 0 {6:.5f}">
          <joint name="{0}_ankle" axis="0 1 0" range="-40 45"/>
          {7}
        </body>
      </body>
    </body>""".format(
            side, sign * body.hips, _numbers(*_LEG_REST),
            _capsule((0, 0, -0.04), (0, 0, -body.thigh), 0.068 * thick, 0.1 * kg), -body.thigh,
            _capsule((0, 0, 0), (0, 0, -body.shank), 0.048 * thick, 0.0465 * kg), -body.shank,
            _capsule((-0.05 * thick, 0, sole), (0.16 * thick, 0, sole), 0.03 * thick, 0.0145 * kg, side + "_sole")))
    return """
<mujoco>
  <compiler angle="degree" eulerseq="xyz"/>
  <option timestep="{step:.8f}" integrator="implicitfast"/>
  <default>
    <geom friction="0.8 0.01 0.001" condim="3" solref="0.006 1" solimp="0.95 0.99 0.001"/>
    <joint limited="true" solreflimit="0.03 1"/>
  </default>
  <worldbody>
  <geom name="ground" type="plane" size="50 50 1"/>
  <body name="pelvis">
    <freejoint name="root"/>
    {hips}{legs}
    <body name="chest">
      <joint name="spine" type="ball" range="0 60"/>
      {trunk}
      {across}{arms}
      <body name="head" pos="0 0 {neck:.5f}">
        <joint name="neck" type="ball" range="0 55"/>
        <geom type="sphere" pos="{skull}" size="{round:.4f}" mass="{brain:.4f}"/>
      </body>
    </body>
  </body>
  </worldbody>
</mujoco>""".format(
        step=STEP_S, legs="".join(legs), arms="".join(arms), neck=body.trunk,
        hips=_capsule((0, -0.7 * body.hips, 0.02), (0, 0.7 * body.hips, 0.02), 0.095 * thick, 0.142 * kg),
        trunk=_capsule((0, 0, 0.16), (0, 0, body.trunk - 0.1), 0.11 * thick, 0.255 * kg),
        across=_capsule((0, -0.7 * body.shoulders, body.trunk - 0.05), (0, 0.7 * body.shoulders, body.trunk - 0.05),
                        0.07 * thick, 0.1 * kg),
        skull=_numbers(0.02 * body.head, 0, 0.105 * body.head), round=0.055 * body.head, brain=0.081 * kg)


def _frame(ahead: np.ndarray, left: np.ndarray, up: np.ndarray) -> np.ndarray:
    return np.stack([ahead, left, up], -1)


def _upright(up: np.ndarray, left: np.ndarray) -> np.ndarray:
    """The frame whose z is ``up`` and whose y is as near to ``left`` as may be."""
    left = unit(left - up * (left @ up))
    return _frame(np.cross(left, up), left, up)


def _limb(along: np.ndarray, next_: np.ndarray, left: np.ndarray, bends: float) -> Tuple[np.ndarray, float]:
    """A limb's frame and the angle of the hinge at its end; bends 1: backwards, as a knee, -1: ahead, as an elbow."""
    axis = bends * np.cross(along, next_)
    straight = np.linalg.norm(axis) < 0.12 or (bends > 0 and axis @ left < 0)
    angle = 0.0 if straight and bends > 0 and axis @ left < 0 else float(np.arccos(np.clip(along @ next_, -1, 1)))
    return _upright(-along, left if straight else unit(axis)), angle


def frames_of(moved: Moves, at: int) -> Dict[str, Any]:
    """Orientation of every body (3, 3) and angle of every hinge, radians, in frame ``at``."""
    way = moved.ways[at]
    found = {"pelvis": _upright(unit(way[TRUNK] - way[HIPS] * (way[TRUNK] @ way[HIPS])), way[HIPS]),
             "chest": _upright(way[TRUNK], way[SHOULDERS]),
             "head": _upright(way[UP], np.cross(way[UP], way[AHEAD]))}  # type: Dict[str, Any]
    for side, upper, lower in (("r", R_UPPER, R_FOREARM), ("l", L_UPPER, L_FOREARM)):
        found[side + "_upper"], found[side + "_elbow"] = _limb(way[upper], way[lower], found["chest"][:, 1], -1.0)
    for side, upper, lower in (("r", R_THIGH, R_SHANK), ("l", L_THIGH, L_SHANK)):
        frame, knee = _limb(way[upper], way[lower], found["pelvis"][:, 1], 1.0)
        found[side + "_thigh"], found[side + "_knee"] = frame, knee
        # The foot is level where the ankle lets it: 18 joints have none.
        c, s = np.cos(knee), np.sin(knee)
        ahead = frame @ np.array([c, 0, -s])
        found[side + "_ankle"] = float(np.clip(np.arcsin(np.clip(ahead[2], -1, 1)), -0.65, 0.75))
    return found


_PARTS = (("spine", "chest", "pelvis"), ("neck", "head", "chest"), ("r_shoulder", "r_upper", "chest"),
          ("l_shoulder", "l_upper", "chest"), ("r_hip", "r_thigh", "pelvis"), ("l_hip", "l_thigh", "pelvis"))


class Humanoid:
    """A simulated body that takes poses and is read as 18 joints."""

    def __init__(self, body: Body, shoulders: np.ndarray) -> None:
        import mujoco
        self.mujoco, self.body = mujoco, body
        self.model = mujoco.MjModel.from_xml_string(model_text(body, shoulders))
        self.data = mujoco.MjData(self.model)
        self.kind = {}  # type: Dict[str, int]
        for name in self.joint_names():
            self.kind[name] = self.model.joint(name).id
        self.mass = float(self.model.body_mass.sum())

    @staticmethod
    def joint_names() -> Tuple[str, ...]:
        return ("spine", "neck") + tuple(
            "{}_{}".format(side, part) for side, _ in SIDES for part in ("shoulder", "elbow", "hip", "knee", "ankle"))

    def _quaternion(self, turn: np.ndarray) -> np.ndarray:
        found = np.empty(4)
        self.mujoco.mju_mat2Quat(found, np.ascontiguousarray(turn).ravel())
        return found

    def ball(self, name: str, parent: np.ndarray, child: np.ndarray) -> np.ndarray:
        """A ball joint's quaternion (4,) for the orientations of its two bodies."""
        body = next(part for joint, part, _ in _PARTS if joint == name)
        rest = np.empty(9)
        self.mujoco.mju_quat2Mat(rest, self.model.body(body).quat)
        return self._quaternion(rest.reshape(3, 3).T @ parent.T @ child)

    def positions(self, moved: Moves, at: int) -> np.ndarray:
        """Generalised positions (nq,) of a frame."""
        frames = frames_of(moved, at)
        qpos = np.zeros(self.model.nq)
        qpos[:3], qpos[3:7] = moved.pelvis[at], self._quaternion(frames["pelvis"])
        for name, child, parent in _PARTS:
            start = self.model.jnt_qposadr[self.kind[name]]
            qpos[start : start + 4] = self.ball(name, frames[parent], frames[child])
        for side, _ in SIDES:
            for part in ("elbow", "knee", "ankle"):
                name = "{}_{}".format(side, part)
                qpos[self.model.jnt_qposadr[self.kind[name]]] = frames[name]
        return qpos

    def take(self, moved: Moves, at: int, fps: float) -> None:
        """The pose of frame ``at`` > 0, and the speed with which it came from the frame before."""
        before, now = self.positions(moved, at - 1), self.positions(moved, at)
        speed = np.zeros(self.model.nv)
        self.mujoco.mj_differentiatePos(self.model, speed, 1.0 / fps, before, now)
        self.data.qpos[:], self.data.qvel[:] = now, np.clip(speed, -25, 25)
        self.model.qpos_spring[:] = now
        self.mujoco.mj_forward(self.model, self.data)

    def tense(self, tone: Dict[str, float]) -> None:
        """Stiffness and damping of all joints as shares of ``TONE``, by the joint's kind; some damping always stays."""
        for name, joint in self.kind.items():
            kind = name.split("_")[-1]
            stiffness, damping = TONE[kind]
            self.model.jnt_stiffness[joint] = stiffness * tone[kind]
            start = self.model.jnt_dofadr[joint]
            count = 3 if self.model.jnt_type[joint] == self.mujoco.mjtJoint.mjJNT_BALL else 1
            self.model.dof_damping[start : start + count] = damping * (0.25 + 0.75 * np.sqrt(tone[kind]))

    def turn_of(self, body: str) -> np.ndarray:
        return self.data.body(body).xmat.reshape(3, 3).copy()

    def joints(self) -> np.ndarray:
        """Where the 18 joints are now: (18, 3) metres."""
        data, size = self.data, self.body
        placed = np.empty((JOINTS, 3))
        head = data.body("head")
        placed[NECK] = head.xpos
        for side, shoulder, elbow, wrist, hip, knee, ankle in (
            ("r", R_SHOULDER, R_ELBOW, R_WRIST, R_HIP, R_KNEE, R_ANKLE),
            ("l", L_SHOULDER, L_ELBOW, L_WRIST, L_HIP, L_KNEE, L_ANKLE),
        ):
            lower = data.body(side + "_lower")
            placed[shoulder], placed[elbow] = data.body(side + "_upper").xpos, lower.xpos
            placed[wrist] = lower.xpos - size.forearm * lower.xmat.reshape(3, 3)[:, 2]
            placed[hip], placed[knee] = data.body(side + "_thigh").xpos, data.body(side + "_shank").xpos
            placed[ankle] = data.body(side + "_foot").xpos
        turn = head.xmat.reshape(3, 3)
        for joint, at in ((NOSE, (0.058, 0, 0.105)), (R_EYE, (0.052, -0.018, 0.122)), (L_EYE, (0.052, 0.018, 0.122)),
                          (R_EAR, (0.008, -0.043, 0.115)), (L_EAR, (0.008, 0.043, 0.115))):  # puppet's face
            placed[joint] = head.xpos + size.head * (turn @ np.array(at))
        return placed


def standing_in(moved: Moves, at: int, body: Body) -> Humanoid:
    """A humanoid whose shoulders are where they are in frame ``at``: recordings shrug, a jointed chest does not."""
    chest = frames_of(moved, at)["chest"]
    reach = body.shoulders * (chest.T @ moved.ways[at, SHOULDERS])
    neck = np.array([0, 0, body.trunk])
    return Humanoid(body, np.stack([neck - reach, neck + reach]))
