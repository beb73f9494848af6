"""Acclaim's pair of files: .asf, a subject's bones, and .amc, their angles in every frame of a trial.

A bone's joint, here, is its far end: the joint ``lfemur`` is the left knee. CMU's recordings: 120 frames a second,
lengths in inches / 0.45.
Source: M. Meredith and S. Maddock, "Motion Capture File Formats Explained", University of Sheffield CS-01-11,
section 2.
"""

from pathlib import Path
from typing import Dict, List, NamedTuple, Tuple

import numpy as np

from edged.errors import PackageError
from edged.train.mocap import Motion, about, chained, checked, floats, text, z_up

FPS = 120.0
_INCH_M = 0.0254
_DOF = {"rx": 0, "ry": 1, "rz": 2}


class _Bone(NamedTuple):
    """reach (3,): from its start to its end, in the file's unit; axis (3, 3): the frame of its angles; dof: x, y, z."""

    reach: np.ndarray
    axis: np.ndarray
    dof: Tuple[int, ...]


class Subject(NamedTuple):
    """unit_m: metres of the file's unit; bones by name, without the root; parents by name."""

    unit_m: float
    bones: Dict[str, _Bone]
    parents: Dict[str, str]


def _euler(degrees: np.ndarray) -> np.ndarray:
    """Turned about x first, then y, then z: (..., 3) -> (..., 3, 3)."""
    x, y, z = np.moveaxis(np.radians(degrees), -1, 0)
    return about(2, z) @ about(1, y) @ about(0, x)


def read_subject(path: Path) -> Subject:
    """The bones of an .asf file: angles in degrees, order XYZ, the root at the origin."""
    parts = {}  # type: Dict[str, List[List[str]]]
    for line in text(path).splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0].startswith(":"):
            rows = parts.setdefault(words[0], [])
        elif not parts:
            raise PackageError("{}: {!r} before any section".format(path, words[0][:40]))
        else:
            rows.append(words)
    for section in (":units", ":root", ":bonedata", ":hierarchy"):
        if not parts.get(section):
            raise PackageError("{}: no {} section".format(path, section))
    units = {row[0]: row[1:] for row in parts[":units"]}
    if units.get("angle") != ["deg"] or len(units.get("length", ())) != 1:
        raise PackageError("{}: angles other than deg, or no length".format(path))
    length = floats(path, units["length"])[0]
    root = {row[0]: row[1:] for row in parts[":root"]}
    if root.get("order") != "TX TY TZ RX RY RZ".split() or root.get("axis") != ["XYZ"] or any(
        floats(path, root.get(key, ["nan"])).any() for key in ("position", "orientation")
    ):
        raise PackageError("{}: a root other than TX TY TZ RX RY RZ, XYZ, at 0".format(path))
    if length <= 0:
        raise PackageError("{}: a length unit of {}".format(path, length))
    bones = _bones(path, parts[":bonedata"])
    return Subject(_INCH_M / length, bones, _parents(path, parts[":hierarchy"], bones))


def _bones(path: Path, rows: List[List[str]]) -> Dict[str, _Bone]:
    bones, open_ = {}, None  # type: Dict[str, _Bone], Dict[str, List[str]]
    for row in rows:
        if row == ["begin"] and open_ is None:
            open_ = {}
        elif row == ["end"] and open_ is not None:
            given = [open_.get(key, []) for key in ("name", "direction", "length", "axis")]
            if [len(one) for one in given] != [1, 3, 1, 4] or given[3][3] != "XYZ":
                raise PackageError("{}: a bone without name, direction, length or axis XYZ".format(path))
            dof = open_.get("dof", [])
            if any(one not in _DOF for one in dof) or given[0][0] in bones:
                raise PackageError("{}: bone {!r} twice, or with {}".format(path, given[0][0][:40], dof))
            reach = floats(path, given[1]) * floats(path, given[2])
            bones[given[0][0]] = _Bone(reach, _euler(floats(path, given[3][:3])), tuple(_DOF[one] for one in dof))
            open_ = None
        elif open_ is None:
            raise PackageError("{}: {!r} outside a bone".format(path, row[0][:40]))
        else:
            open_[row[0]] = row[1:]  # id and limits of a bone are not used
    return bones


def _parents(path: Path, rows: List[List[str]], bones: Dict[str, _Bone]) -> Dict[str, str]:
    """Parents before their children."""
    parents = {}  # type: Dict[str, str]
    for row in rows[1:-1]:
        for name in row[1:]:
            if name not in bones or name in parents or (row[0] != "root" and row[0] not in parents):
                raise PackageError("{}: bone {!r} has no place in the hierarchy".format(path, name[:40]))
            parents[name] = row[0]
    if rows[0] != ["begin"] or rows[-1] != ["end"] or len(parents) != len(bones):
        raise PackageError("{}: a hierarchy that leaves out bones".format(path))
    return parents


def read(subject: Path, trial: Path) -> Motion:
    """A trial (.amc) of a subject (.asf); the joint ``root`` comes first."""
    who = read_subject(subject)
    names = ["root"] + list(who.parents)
    frames = _frames(trial, who)
    turns = np.empty((len(frames), len(names), 3, 3))
    turns[:, 0] = _euler(frames[:, 3:6])
    column = 6
    for place, name in enumerate(names[1:], 1):
        bone = who.bones[name]
        angles = np.zeros((len(frames), 3))
        angles[:, bone.dof] = frames[:, column : column + len(bone.dof)]
        turns[:, place] = bone.axis @ _euler(angles) @ bone.axis.T
        column += len(bone.dof)
    parents = [-1] + [names.index(who.parents[name]) for name in names[1:]]
    starts, frame = chained(parents, np.zeros((len(names), 3)), turns, frames[:, :3])
    # A bone turns at its start and its joint is its end: what the tree of starts lacks is each bone's own reach.
    places = starts
    for place, name in enumerate(names[1:], 1):
        places[:, place] = places[:, parents[place]] + frame[:, place] @ who.bones[name].reach
    return checked(trial, z_up(places * who.unit_m), names, FPS)


def _frames(path: Path, who: Subject) -> np.ndarray:
    """(T, 6 + angles): the root's place and turn, then every bone's angles in the order of the hierarchy."""
    rows = []  # type: List[Dict[str, List[str]]]
    lines = [line.split() for line in text(path).splitlines() if line.strip() and not line.startswith("#")]
    if lines[:2] != [[":FULLY-SPECIFIED"], [":DEGREES"]]:
        raise PackageError("{}: neither :FULLY-SPECIFIED nor in :DEGREES".format(path))
    for words in lines[2:]:
        if len(words) == 1 and words[0] == str(len(rows) + 1):
            rows.append({})
        elif not rows or words[0] in rows[-1] or (words[0] != "root" and words[0] not in who.bones):
            raise PackageError("{}: {!r} in frame {}".format(path, words[0][:40], len(rows)))
        else:
            rows[-1][words[0]] = words[1:]
    wanted = [("root", 6)] + [(name, len(who.bones[name].dof)) for name in who.parents if who.bones[name].dof]
    values = []  # type: List[str]
    for number, row in enumerate(rows, 1):
        for name, count in wanted:
            if len(row.get(name, ())) != count:
                raise PackageError("{}: bone {!r} in frame {} lacks its {} angles".format(path, name, number, count))
            values += row[name]
    return floats(path, values).reshape(len(rows), sum(count for _, count in wanted))
