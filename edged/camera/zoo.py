"""The pose networks that edged knows: each by name, its file pinned by its SHA-256.

The default one comes with edged; the others lie in a folder that the operator names (``models`` of a camera, or
``EDGED_MODELS``; scripts/fetch-models fills it). A file of another content is refused before any of it is parsed: an
importer of OpenCV is no place for bytes of unknown origin.
"""

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional, Tuple, Union

from edged.errors import ConfigError, MissingInput, VerificationFailed

ENVIRONMENT = "EDGED_MODELS"

# The x and y channel of each limb of edged.camera.pose.LIMBS, in OpenPose's own (Caffe) order. Source: Cao et al.,
# "Realtime Multi-Person 2D Pose Estimation using Part Affinity Fields", arXiv:1611.08050, model COCO-18.
OPENPOSE_PAF = (
    (12, 13), (20, 21), (14, 15), (16, 17), (22, 23), (24, 25), (0, 1), (2, 3), (4, 5), (6, 7),
    (8, 9), (10, 11), (28, 29), (30, 31), (34, 35), (32, 33), (36, 37), (18, 19), (26, 27),
)  # fmt: skip


@dataclass(frozen=True)
class PoseModel:
    """One network: ``width`` x ``height`` pixels in, 19 heat maps and 38 affinity fields at ``stride`` pixels out.

    importer : "onnx", "tensorflow" or "openvino"       any_size : takes other sizes (multiples of ``multiple``), too
    bundled : the file is a part of edged, in no folder of the operator's
    weights : (file, its SHA-256) where they are in a file of their own
    published : where its publisher has the files, without their names, and how many bytes each has
    scale, mean, rgb : the input is (pixel - mean) * scale, in BGR unless ``rgb``
    heat, paf : (output name, first channel) of each      paf_channels : (x, y) of each limb, counted from the first
    """

    name: str
    file: str
    sha256: str
    importer: str
    width: int
    height: int
    any_size: bool
    heat: Tuple[str, int]
    paf: Tuple[str, int]
    stride: int = 8
    scale: float = 1.0
    mean: Tuple[float, float, float] = (0.0, 0.0, 0.0)
    rgb: bool = False
    paf_channels: Tuple[Tuple[int, int], ...] = OPENPOSE_PAF
    multiple: int = 8
    bundled: bool = False
    weights: Optional[Tuple[str, str]] = None
    published: Optional[Tuple[str, Tuple[int, ...]]] = None

    @property
    def files(self) -> Tuple[Tuple[str, str], ...]:
        """(file, its SHA-256) of each, the description first."""
        return ((self.file, self.sha256),) + (() if self.weights is None else (self.weights,))


_LARGE = PoseModel(
    name="human-pose-estimation-0001",
    file="human-pose-estimation-0001.f32.456x256.onnx",
    sha256="b2281456921c71c3e77fc960fe19b5e88b7c3e801c6c8d0436ae85f45862b1ed",
    importer="onnx",
    width=456,
    height=256,
    any_size=True,
    heat=("Mconv7_stage2_L2", 0),
    paf=("Mconv7_stage2_L1", 0),
)

MODELS = {
    model.name: model
    for model in (
        PoseModel(
            name="edged-pose",
            file="pose.onnx",
            sha256="dde7f5f46748edea1bae557be735a8002a0f33afe68d290cecba78166cd1ebab",
            importer="onnx",
            width=448,
            height=256,
            any_size=True,
            heat=("heat", 0),
            paf=("paf", 0),
            scale=1 / 127.5,
            mean=(127.5, 127.5, 127.5),
            paf_channels=tuple((2 * limb, 2 * limb + 1) for limb in range(19)),
            multiple=16,
            bundled=True,
        ),
        _LARGE,
        # The publisher's own files; the one above was made of its 8-bit version. Source of hashes, sizes and address:
        # model.yml of human-pose-estimation-0001 in Open Model Zoo (Apache-2.0).
        replace(
            _LARGE,
            name="human-pose-estimation-0001-fp32",
            file="human-pose-estimation-0001.xml",
            sha256="a4312443bb77b8528080c75fff2e5b99ad46d660d5c4cc753ee218dd3deb01f5",
            weights=("human-pose-estimation-0001.bin",
                     "746bddef69d602945f7db09401d0567176f805fa0ea2086d2b857b459e316254"),
            published=("https://storage.openvinotoolkit.org/repositories/open_model_zoo/2021.4/models_bin/3/"
                       "human-pose-estimation-0001/FP32/", (153774, 16394712)),
            importer="openvino",
        ),
        PoseModel(
            name="mobilenet_v2_small",
            file="mobilenet_v2_small.448x256.patched.pb",
            sha256="034731b4a0300c8702c0cc5b23dd12a4914cddad35b23f091613be6898e0ddbd",
            importer="tensorflow",
            width=448,
            height=256,
            any_size=False,
            heat=("Openpose/concat_stage7", 0),
            paf=("Openpose/concat_stage7", 19),
        ),
    )
}
DEFAULT = "edged-pose"
PRODUCTION = ("human-pose-estimation-0001-fp32", "human-pose-estimation-0001")  # the better one first
BUNDLED = Path(__file__).resolve().parent.parent / "bundled"


def model(name: str) -> PoseModel:
    """Raises ConfigError where no model has that name."""
    if name not in MODELS:
        raise ConfigError("no pose model is called {!r}: the names are {}".format(name, ", ".join(sorted(MODELS))))
    return MODELS[name]


def find(name: str, folder: Optional[Union[str, Path]] = None) -> Path:
    """The file of a model in ``folder`` (default: $EDGED_MODELS; a bundled one is in none), its content checked.

    Raises ConfigError, MissingInput and VerificationFailed as ``read`` does.
    """
    read(name, folder)
    return _folder(name, folder) / model(name).file


def best(folder: Optional[Union[str, Path]] = None) -> str:
    """The name of the best network that ``folder`` (default: $EDGED_MODELS) has a file of; else the default one's."""
    named = str(folder) if folder else os.environ.get(ENVIRONMENT, "")
    there = [name for name in PRODUCTION if named and (Path(named) / model(name).file).is_file()]
    return there[0] if there else DEFAULT


def read(name: str, folder: Optional[Union[str, Path]] = None) -> Tuple[bytes, ...]:
    """The bytes of a model's files, checked: whoever parses these parses what was pinned, whatever happens to them.

    Raises ConfigError (no such name), MissingInput (no folder or no file) and VerificationFailed (another content).
    """
    place = _folder(name, folder)
    return tuple(_checked(name, place / file, sha256) for file, sha256 in model(name).files)


def _checked(name: str, path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        if model(name).bundled:
            raise MissingInput("{}: {}: install edged again".format(path, error.strerror)) from error
        fetch = "" if model(name).published is None else "fetch it (scripts/fetch-models), "
        raise MissingInput(
            "{}: pose model {} cannot be read ({}): {}put the file there, or name its folder by {} or by `models` of "
            "the camera".format(path, name, error.strerror, fetch, ENVIRONMENT)) from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise VerificationFailed("{}: this is not pose model {}: SHA-256 {} instead of {}".format(
            path, name, found, sha256))
    return content


def _folder(name: str, folder: Optional[Union[str, Path]]) -> Path:
    if model(name).bundled:
        return BUNDLED
    named = str(folder) if folder else os.environ.get(ENVIRONMENT, "")
    if not named:
        raise MissingInput("no folder of models is named, and pose model {} needs {}: set {} or `models` of the "
                           "camera".format(name, model(name).file, ENVIRONMENT))
    return Path(named)
