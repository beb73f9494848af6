"""``edged-owner train crossvalidate``: real falls of people whom training never saw, one subject left out at a time.

For each subject of the real videos a run is refined on everything but that subject's videos, and judges those.
The plan is that of the refinement which makes the bundled network: what comes out is said of it, too.
"""

import argparse
from pathlib import Path
from typing import Dict, List, Tuple

import torch

from edged.errors import UsageError
from edged.model import bundled
from edged.model.quantise import quantise
from edged.train import action, evaluate
from edged.train.mixture import add_sources, real_videos, sources


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_sources(parser)
    parser.add_argument("--start", type=Path, required=True, metavar="FILE", help="the run's state that is refined")
    parser.add_argument("--folder", type=Path, required=True, metavar="FOLDER", help="keeps a state for each subject")
    action.add_plan(parser)


def run(given: argparse.Namespace) -> None:
    videos = real_videos(given)
    subjects = sorted({video.subject for video in videos})
    if len(subjects) < 2:
        raise UsageError("--skeletons: videos of two subjects at least")
    given.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    said: Dict[str, List[Tuple[float, float]]] = {}
    for subject in subjects:
        network = action.export(action.train(action.plan_of(given), sources(given, subject),
                                             given.folder / "subject_{}.state".format(subject), given.start))
        model = quantise(network, bundled.calibration_clips())
        for video in videos:
            if video.subject == subject:
                said[video.name] = evaluate.falling_in(model, video)
                print("{}: falls at {}; falling is at most {:.2f} before, {:.2f} then".format(
                    video.name, "-" if video.fall is None else "{:.1f} s".format(video.fall[0]),
                    *_highest(said[video.name], video.fall)), flush=True)
    print("\n" + evaluate.real_table(videos, [said[video.name] for video in videos]))


def _highest(said: List[Tuple[float, float]], fall: object) -> Tuple[float, float]:
    start_s = float("inf") if fall is None else fall[0]  # type: ignore[index]
    return (max((probability for at_s, probability in said if at_s < start_s), default=0.0),
            max((probability for at_s, probability in said if at_s >= start_s), default=0.0))
