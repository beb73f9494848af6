"""Where an interrupted training run leaves off: a file that knows its plan, so that no other goes on from it."""

import os
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

import torch

from edged.errors import MissingInput, PackageError, UsageError


def load(path: Path) -> Dict[str, Any]:
    """Raises MissingInput, and PackageError for anything that ``keep`` did not write."""
    if not path.is_file():
        raise MissingInput("{}: no such file".format(path))
    try:
        found = torch.load(str(path), weights_only=True)
    except Exception as error:  # a damaged file is one of a dozen kinds of error
        raise PackageError("{}: not a state of a training run, or damaged".format(path)) from error
    if not isinstance(found, dict) or not {"network", "step"} <= set(found):
        raise PackageError("{}: not a state of a training run".format(path))
    return found


def resumed(path: Optional[Path], plan: Mapping[str, Any]) -> Optional[Dict[str, Any]]:
    """What ``path`` holds, None where nothing was kept yet. Raises UsageError where it is of another plan."""
    if path is None or not path.exists():
        return None
    found = load(path)
    theirs = found.get("plan", {})
    for name in sorted(plan):
        if theirs.get(name) != plan[name]:
            raise UsageError("{}: is of another plan, {} {} and not {}: give it the options of then, or name another "
                             "--state".format(path, name, theirs.get(name, "unknown"), plan[name]))
    return found


def keep(path: Optional[Path], plan: Mapping[str, Any], step: int, **parts: Any) -> None:
    """The old one or the new one is whole at any moment."""
    if path is not None:
        fresh = path.with_name(path.name + ".new")
        torch.save(dict(parts, plan=dict(plan), step=step), str(fresh))
        os.replace(str(fresh), str(path))


def fill(network: torch.nn.Module, weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Raises PackageError where they are those of a network of another form."""
    try:
        network.load_state_dict(weights)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise PackageError("{}: holds a network of another form".format(path)) from error


def require_folder(path: Path) -> None:
    """Raise MissingInput before hours are spent on what cannot be written."""
    if not path.absolute().parent.is_dir():
        raise MissingInput("{}: there is no folder {}".format(path, path.absolute().parent))
