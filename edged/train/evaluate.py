"""``edged-owner train evaluate``: how well an action network does on clips it never saw, as the card's tables.

Clips come from seeds that training does not use. Recordings go the way of the camera process, through tracker and
assembler, a clip every second. Figures of generated motion say nothing about real people: those of the videos do.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import List, Sequence, Tuple

import numpy as np

from edged import command
from edged.camera import motion
from edged.camera.assemble import Assembler
from edged.camera.clip import fixed_point
from edged.camera.recording import RecordedEvent, Recording
from edged.camera.track import Tracker
from edged.model import bundled, heldout, reference, stgcn
from edged.model.layers import Model
from edged.model.network import read
from edged.model.quantise import quantise
from edged.train import realvideo
from edged.train.mixture import Source, add_sources, held_out_sources, real_videos

RECORDING_SEED = 995000
THRESHOLDS = (0.5, 0.6, 0.8)
CLIP_S = 10.0
SOURCE_CLIPS = 20  # of each label and source


@dataclass(frozen=True, eq=False)
class Figures:
    """labels (N,) true; float_logits (N, L); probabilities (N, L) of the integer network, 0..1; seconds a clip."""

    labels: np.ndarray
    float_logits: np.ndarray
    probabilities: np.ndarray
    seconds: float

    @property
    def top1(self) -> float:
        return float((self.probabilities.argmax(1) == self.labels).mean())

    @property
    def agreement(self) -> float:
        """Share of the clips in which integers and floating point name the same label."""
        return float((self.probabilities.argmax(1) == self.float_logits.argmax(1)).mean())

    def recall(self, label: str) -> float:
        index = motion.LABELS.index(label)
        return float((self.probabilities.argmax(1) == index)[self.labels == index].mean())

    def at_threshold(self, label: str, threshold: float) -> Tuple[float, int, int]:
        """Share found, false alarms, and of how many clips without it."""
        index = motion.LABELS.index(label)
        raised, is_one = self.probabilities[:, index] >= threshold, self.labels == index
        return float(raised[is_one].mean()), int(raised[~is_one].sum()), int((~is_one).sum())


def held_out(count: int) -> List[Tuple[int, np.ndarray]]:
    """(label, int16 clip (m, 300, 18, 3))."""
    return [(heldout.label(index), heldout.clip(index)) for index in range(count)]


def measure(network: stgcn.Network, model: Model, clips: Sequence[Tuple[int, np.ndarray]]) -> Figures:
    """Judge every clip in floating point and in integers."""
    floats, probabilities, spent = [], [], 0.0
    for _, clip in clips:
        floats.append(stgcn.forward_clip(network, clip))
        began = time.perf_counter()
        probabilities.append(reference.run(model, clip)[1] / 65536)
        spent += time.perf_counter() - began
    labels = np.array([label for label, _ in clips])
    return Figures(labels, np.array(floats), np.array(probabilities), spent / len(clips))


def judged(model: Model, recording: Recording) -> List[Tuple[float, np.ndarray]]:
    """(seconds, probabilities (L,)) of every clip that the camera process would make of a recording."""
    tracker, assembler = Tracker(), Assembler(bytes(32), model.shape.frames, model.shape.persons)
    found = []
    for index, frame in enumerate(recording.frames):
        at_s = index / recording.fps
        people = [(number, frame[place]) for number, place in tracker.update(at_s, frame)]
        assembler.add(at_s, recording.width, recording.height, people)
        clips = assembler.due(at_s) if index + 1 < len(recording.frames) else assembler.rest()
        found += [(at_s, reference.run(model, clip.coordinates)[1] / 65536) for clip in clips]
    return found


@dataclass(frozen=True)
class Alerts:
    """Of recordings: falls; how long after its end each one found raised an alert; alerts of nothing; clips."""

    falls: int
    delays_s: Tuple[float, ...]
    mistaken: int
    clips: int

    def with_(self, other: "Alerts") -> "Alerts":
        return Alerts(self.falls + other.falls, self.delays_s + other.delays_s, self.mistaken + other.mistaken,
                      self.clips + other.clips)


def alerts(recording: Recording, said: Sequence[Tuple[float, np.ndarray]], threshold: float) -> Alerts:
    """What the clips of one recording (of ``judged``) would have raised.

    A clip is mistaken where it gives "falling" the threshold and no fall began or lay within its ten seconds.
    """
    falling = motion.LABELS.index(motion.FALLING)
    raised = [at_s for at_s, probabilities in said if probabilities[falling] >= threshold]
    falls = [event for event in recording.events if event.label == motion.FALLING]

    def meant(at_s: float, fall: RecordedEvent) -> bool:
        return fall.start_s <= at_s <= fall.end_s + CLIP_S

    firsts = [[at_s for at_s in raised if meant(at_s, fall)][:1] for fall in falls]
    delays = tuple(first[0] - fall.end_s for first, fall in zip(firsts, falls) if first)
    mistaken = sum(1 for at_s in raised if not any(meant(at_s, fall) for fall in falls))
    return Alerts(len(falls), delays, mistaken, len(said))


def alert_table(model: Model, count: int) -> str:
    """``count`` recordings of 30 s with two walkers and a faller, and as many without a fall, as Markdown."""
    casts = ((motion.WALKING, motion.WALKING, motion.FALLING), (motion.WALKING, motion.STANDING, motion.JUMPING))
    found = {threshold: Alerts(0, (), 0, 0) for threshold in THRESHOLDS}
    for seed in range(count):
        for cast in casts:
            recording = motion.generate(RECORDING_SEED + seed, cast=cast)
            said = judged(model, recording)
            for threshold in THRESHOLDS:
                found[threshold] = found[threshold].with_(alerts(recording, said, threshold))
    rows = [("through tracker and assembler, a clip a second", "at {}".format),
            ("---", lambda threshold: "---"),
            ("falls that raised an alert", lambda t: "{} of {}".format(len(found[t].delays_s), found[t].falls)),
            ("delay after the fall, median and 95 %", lambda t: "{:.1f} s, {:.1f} s".format(
                *np.quantile(found[t].delays_s or (np.nan,), (0.5, 0.95)))),
            ("clips with an alert and no fall", lambda t: "{} of {}".format(found[t].mistaken, found[t].clips))]
    return "\n".join("| {} | {} |".format(name, " | ".join(cell(t) for t in THRESHOLDS)) for name, cell in rows)


def tables(figures: Figures) -> str:
    """The figures as Markdown."""
    lines = ["| held-out clips | {} |".format(len(figures.labels)), "|---|---|",
             "| top-1, integer network | {:.1%} |".format(figures.top1),
             "| top-1, floating point | {:.1%} |".format((figures.float_logits.argmax(1) == figures.labels).mean()),
             "| same label in integers and floating point | {:.1%} |".format(figures.agreement)]
    lines += ["| recall of {} | {:.1%} |".format(label, figures.recall(label)) for label in motion.LABELS]
    for threshold in THRESHOLDS:
        found, alarms, others = figures.at_threshold(motion.FALLING, threshold)
        lines.append("| falling at {}: found | {:.1%} |".format(threshold, found))
        lines.append("| falling at {}: false alarms | {} of {} clips without".format(threshold, alarms, others) + " |")
    confusion = np.zeros((len(motion.LABELS),) * 2, int)
    np.add.at(confusion, (figures.labels, figures.probabilities.argmax(1)), 1)
    lines += ["", "| true, then judged | " + " | ".join(motion.LABELS) + " |", "|---" * (len(motion.LABELS) + 1) + "|"]
    lines += ["| {} | {} |".format(label, " | ".join(str(count) for count in row))
              for label, row in zip(motion.LABELS, confusion)]
    return "\n".join(lines)


def source_table(model: Model, sources: Sequence[Source], count: int) -> str:
    """Recall by label of each source's clips, ``count`` of each label that it has, as Markdown."""
    lines = ["| recall, held out | {} |".format(" | ".join(motion.LABELS)), "|---" * (len(motion.LABELS) + 1) + "|"]
    for place, source in enumerate(sources):
        cells = []
        for index, label in enumerate(motion.LABELS):
            if label not in source.labels:
                cells.append("-")
                continue
            made = [fixed_point(source.clip(np.random.default_rng((heldout.SEED, place, index, one)), label))
                    for one in range(count)]
            right = sum(int(reference.run(model, clip)[0].argmax() == index) for clip in made)
            cells.append("{} of {}".format(right, count))
        lines.append("| {} | {} |".format(source.name, " | ".join(cells)))
    return "\n".join(lines)


def falling_in(model: Model, video: realvideo.Video) -> List[Tuple[float, float]]:
    """(seconds, probability of falling) of every clip that the camera process would make of it."""
    falling = model.labels.index(motion.FALLING)
    return [(at_s, float(probabilities[falling])) for at_s, probabilities in judged(model, video.recording)]


def real_table(videos: Sequence[realvideo.Video], said: Sequence[Sequence[Tuple[float, float]]]) -> str:
    """What was said of real people, as Markdown; ``said`` as realvideo.outcome takes it."""
    lines = ["| real videos, falling at | |", "|---|---|"]
    lines += ["| {} | {} |".format(threshold, realvideo.outcome(videos, said, threshold)) for threshold in THRESHOLDS]
    return "\n".join(lines)


def draw_confusion(figures: Figures, path: Path) -> None:
    """The confusion matrix as a picture; shares of each true label's clips."""
    from matplotlib.figure import Figure

    count = len(motion.LABELS)
    confusion = np.zeros((count, count))
    np.add.at(confusion, (figures.labels, figures.probabilities.argmax(1)), 1)
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    sheet = Figure(figsize=(7.5, 7), layout="constrained")
    axes = sheet.add_subplot()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(count), motion.LABELS, rotation=45, ha="right")
    axes.set_yticks(range(count), motion.LABELS)
    axes.set_xlabel("judged")
    axes.set_ylabel("true")
    for row in range(count):
        for column in range(count):
            if share[row, column] >= 0.005:
                axes.text(column, row, "{:.0%}".format(share[row, column]), ha="center", va="center", fontsize=8,
                          color="white" if share[row, column] > 0.6 else "black")
    axes.set_title("{} held-out generated clips".format(len(figures.labels)))
    sheet.savefig(str(path), dpi=90, metadata={"Software": None})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--network", type=Path, metavar="FILE", help="a network file (default: the bundled one)")
    parser.add_argument("--clips", type=command.at_least(1), default=1000, metavar="N",
                        help="held-out generated clips (default 1000)")
    parser.add_argument("--recordings", type=command.at_least(0), default=40, metavar="N",
                        help="pairs of generated recordings (default 40)")
    add_sources(parser)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write the confusion matrix as a picture")


def run(given: argparse.Namespace) -> None:
    if given.network is None:
        network, model = bundled.load(), bundled.model()
    else:
        network = read(given.network)
        model = quantise(network, bundled.calibration_clips())
    figures = measure(network, model, held_out(given.clips))
    print(tables(figures))
    if given.plot is not None:
        draw_confusion(figures, given.plot)
    if given.recordings:
        print("\n" + alert_table(model, given.recordings))
    parts = held_out_sources(given.corpus, given.falls)
    if parts:
        print("\n" + source_table(model, parts, SOURCE_CLIPS))
    if given.skeletons is not None:
        videos = real_videos(given)
        print("\n" + real_table(videos, [falling_in(model, video) for video in videos]))
    print("\n{:.0f} ms a clip in the NumPy reference".format(1000 * figures.seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    run(parser.parse_args())


if __name__ == "__main__":
    main()
