"""``edged-owner``: the model owner's tools."""

import argparse
import importlib
import json
import os
import sys
from typing import Any, Iterable, List, Optional, Sequence, Tuple

from edged import authority, command, negotiation, serving
from edged.enclave.wire import Placement
from edged.errors import MissingInput, PackageError, UsageError
from edged.keyserver import holder
from edged.placing import SHARED, Placing
from edged.trust.cosign import Party

CLIPS = 1000
PICTURES = (".png", ".svg", ".pdf")
# What `train` offers: the module in edged/train of that name, and what it does.
TRAIN = {
    "corpus": "keep the moves of recorded motion in one file, for training",
    "ragdoll": "make a library of falls by physics, for training",
    "action": "train the action network (ST-GCN)",
    "pose": "prepare examples for, train, or evaluate the small pose network",
    "crossvalidate": "refine it without each subject of the real videos in turn, and judge those",
    "evaluate": "tables of how well an action network does",
    "sample": "render the sample video of the demo",
}


def main(arguments: Optional[List[str]] = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    parser = command.parser("edged-owner", __doc__)
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    _add_import(commands)
    _add_pack(commands)
    inspected = commands.add_parser("inspect", help="print what a package says of itself, as JSON",
                                    description="Print a package's manifest. Neither its signature nor its sealed "
                                                "tensors are verified: the enclave does that at load.")
    inspected.add_argument("file", metavar="FILE", help="the package")
    inspected.set_defaults(run=run_inspect)
    _add_keys(commands)
    authority.add_verify(commands, city=False)
    negotiation.add_draft(negotiation.add_agreement(commands))
    for signed in (authority.add_sign_reference(commands, _signing_key),
                   negotiation.add_sign(commands, Party.MODEL_OWNER, _signing_key),
                   serving.add_serve(commands, _holder), serving.add_grant(commands, _holder)):
        signed.add_argument("--keys", metavar="RING", required=True)
        signed.add_argument("--passphrase-file", metavar="FILE", required=True)
    _add_report(commands)
    _add_train(commands, given)
    return command.run(parser, given)


def _add_import(commands: Any) -> None:
    parser = commands.add_parser("import", help="read a trained ST-GCN (PyTorch state dict or ONNX)")
    parser.add_argument("file", metavar="CHECKPOINT")
    parser.add_argument("--labels", metavar="FILE", help="one label a line, in the network's order")
    parser.add_argument("--skeleton", choices=("coco18", "body25", "ntu25"), help="where its adjacency does not tell")
    parser.add_argument("--persons", type=int, default=2)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--strides", type=_numbers, metavar="N,N,...", help="of the blocks, where they do not follow")
    parser.add_argument("--out", metavar="FILE", required=True, help="the network file")
    parser.set_defaults(run=run_import)


def _add_pack(commands: Any) -> None:
    parser = commands.add_parser("pack", help="quantise a network, sign and seal it as a package")
    parser.add_argument("file", metavar="NETWORK", help="a network file, of import or train action")
    parser.add_argument("--keys", metavar="RING", required=True)
    parser.add_argument("--passphrase-file", metavar="FILE", required=True)
    parser.add_argument("--calibration", metavar="CLIPS", help="clips of the kind that it will meet (default: "
                                                               "generated ones, where the labels are the generator's)")
    parser.add_argument("--model-id", default="stgcn", metavar="TEXT")
    parser.add_argument("--version", type=int, default=1, metavar="N", help="agreements set a least version")
    parser.add_argument("--placements", default="masked,enclave", metavar="LIST",
                        help="where its products may run: masked, inputs, enclave (default masked,enclave)")
    parser.add_argument("--key-id", default="", metavar="HEX", help="default: the newest key")
    parser.add_argument("--out", metavar="FILE", required=True)
    parser.set_defaults(run=run_pack)


def _add_keys(commands: Any) -> None:
    parser = commands.add_parser("keys", help="the owner's private keys, in one file under a passphrase")
    group = parser.add_subparsers(required=True, dest="keys", metavar="COMMAND")
    for name, run, words in (("new", run_keys_new, "draw a signing key and a model key"),
                             ("show", run_keys_show, "print the verification key and the key ids, as JSON"),
                             ("check", run_keys_check, "open the ring, as a backup is checked"),
                             ("renew", run_keys_renew, "add a model key; older ones stay"),
                             ("passphrase", run_keys_passphrase, "change the passphrase")):
        one = group.add_parser(name, help=words)
        one.add_argument("ring", metavar="RING")
        if name != "show":
            one.add_argument("--passphrase-file", metavar="FILE", required=True)
        if name == "passphrase":
            one.add_argument("--new-passphrase-file", metavar="FILE", required=True)
        one.set_defaults(run=run)


def _add_report(commands: Any) -> None:
    parser = commands.add_parser("report", help="compare a quantised network with its original",
                                 description="Without a network: the bundled one. Without clips: held-out clips that "
                                             "the generator makes from a fixed seed.")
    parser.add_argument("file", nargs="?", metavar="NETWORK", help="a network file")
    parser.add_argument("--calibration", metavar="CLIPS", help="as for pack")
    parser.add_argument("--on", metavar="CLIPS", help="the clips to compare on")
    parser.add_argument("--package", metavar="PACKAGE", help="what was packed of it, instead of quantising it again")
    parser.add_argument("--keys", metavar="RING", help="opens the package")
    parser.add_argument("--passphrase-file", metavar="FILE")
    parser.add_argument("--clips", type=int, default=CLIPS, metavar="N", help="of generated clips (default 1000)")
    parser.add_argument("--rivals", action="store_true", help="two-decimal floats and int8 on the same clips, too")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plot", metavar="FILE", help="write a picture: .png, .svg or .pdf")
    parser.set_defaults(run=run_report)


def _add_train(commands: Any, given: Sequence[str]) -> None:
    """Only the tool that is asked for is imported: each needs what the others do not."""
    parser = commands.add_parser("train", help="train and measure the default networks")
    group = parser.add_subparsers(required=True, dest="train", metavar="WHAT")
    wanted = [name for place, name in enumerate(given) if place and given[place - 1] == "train"]
    for name, words in TRAIN.items():
        one = group.add_parser(name, help=words)
        if name in wanted:
            try:
                with command.needs("owner"):
                    module = importlib.import_module("edged.train." + name)
            except MissingInput as error:
                one.exit(error.exit_code, "edged-owner: {}\n".format(error))
            module.add_arguments(one)
            one.set_defaults(run=module.run)


def _numbers(text: str) -> Tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError("{!r}: numbers with commas between them are needed".format(text)) from None


def run_import(given: argparse.Namespace) -> None:
    with command.needs("owner"):
        from edged.model import importer, network
    labels = None
    if given.labels is not None:
        labels = _lines(given.labels)
    made = importer.import_file(given.file, labels=labels, skeleton=given.skeleton, persons=given.persons,
                                frames=given.frames, strides=given.strides)
    try:
        content = network.to_bytes(made)
    except PackageError as error:
        raise PackageError("{}: {}".format(given.file, error)) from error
    placing = Placing()
    placing.add(given.out, content, SHARED)
    placing.commit()
    print("{}: {} blocks, channels {}, {} labels, skeleton {}".format(
        given.out, len(made.blocks), ", ".join(str(block.channels_out) for block in made.blocks), len(made.labels),
        made.skeleton.name))


def _lines(path: str) -> List[str]:
    try:
        text = command.read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PackageError("{}: not a list of labels in UTF-8".format(path)) from error
    return [line.strip(" \t\r") for line in text.split("\n") if line.strip(" \t\r")]


def run_pack(given: argparse.Namespace) -> None:
    with command.needs("owner"):
        from edged.model import network, package
        from edged.model.quantise import quantise
    from edged.trust import keyring
    placements = _placements(given.placements)
    try:
        network.check_text(given.model_id, "--model-id")
    except PackageError as error:
        raise UsageError(str(error)) from error
    try:
        wanted = bytes.fromhex(given.key_id)
    except ValueError as error:
        raise UsageError("--key-id {}: must be hexadecimal, as keys show prints it".format(given.key_id)) from error
    ring = keyring.open_ring(given.keys, keyring.read_passphrase(given.passphrase_file))
    key_id, key = ring.model_key(wanted)
    original = network.read(given.file)
    model = _quantised(quantise, original, _calibration(original, given.calibration), given.file)
    packed = package.pack(model, key, ring.signing_key, given.model_id, given.version, placements, key_id)
    placing = Placing()
    placing.add(given.out, packed, SHARED)
    placing.commit()
    print("{}: {} {} for {}, key {}, {} bytes".format(
        given.out, given.model_id, given.version, given.placements, key_id.hex(), len(packed)))


def _quantised(quantise: Any, original: Any, calibration: List[Any], path: Optional[str]) -> Any:
    try:
        return quantise(original, calibration)
    except PackageError as error:
        raise PackageError("{}: {}".format(path or "the bundled network", error)) from error


def _placements(text: str) -> int:
    known = {where.name.lower(): where for where in Placement}
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise UsageError("--placements: {!r}: choose of {}".format(name, ", ".join(sorted(known))))
    return sum({1 << known[name] for name in names})


def _calibration(original: Any, path: Optional[str]) -> List[Any]:
    from edged.camera import motion
    from edged.model import bundled, clips
    if path is not None:
        return clips.read(path, original)[0]
    if original.labels != motion.LABELS or (original.frames, original.joints) != (300, motion.JOINTS):
        raise UsageError("--calibration: this network needs clips of its own: the generator makes other labels")
    return bundled.calibration_clips()


def run_inspect(given: argparse.Namespace) -> None:
    with command.needs("owner"):
        from edged.model import package
        from edged.model.layers import Kind
    manifest = package.inspect(command.read_file(given.file))
    print(json.dumps({
        "model_id": manifest.model_id,
        "version": manifest.version,
        "form": manifest.form,
        "skeleton": manifest.skeleton,
        "persons": manifest.shape.persons,
        "frames": manifest.shape.frames,
        "joints": manifest.shape.joints,
        "partitions": manifest.shape.partitions,
        "placements": [where.name.lower() for where in Placement if manifest.placements >> where & 1],
        "key_id": manifest.key_id.hex(),
        "chunks": manifest.chunks,
        "layers": [dict(row._asdict(), kind=Kind(row.kind).name.lower()) for row in manifest.table],
        "labels": list(manifest.labels),
    }, indent=2))


def run_keys_new(given: argparse.Namespace) -> None:
    from edged.trust import keyring
    ring = keyring.generate()
    keyring.create(given.ring, ring, keyring.read_passphrase(given.passphrase_file))
    print(json.dumps(keyring.as_dict(ring.public), indent=2))


def run_keys_show(given: argparse.Namespace) -> None:
    from edged.trust import keyring
    print(json.dumps(keyring.as_dict(keyring.inspect(given.ring)), indent=2))


def run_keys_check(given: argparse.Namespace) -> None:
    from edged.trust import keyring
    ring = keyring.open_ring(given.ring, keyring.read_passphrase(given.passphrase_file))
    print("{}: opens; signing key and {} model key(s)".format(given.ring, len(ring.model_keys)))


def run_keys_renew(given: argparse.Namespace) -> None:
    from edged.trust import keyring
    passphrase = keyring.read_passphrase(given.passphrase_file)
    ring = keyring.open_ring(given.ring, passphrase).renewed()
    keyring.replace(given.ring, ring, passphrase)
    print(json.dumps(keyring.as_dict(ring.public), indent=2))


def run_keys_passphrase(given: argparse.Namespace) -> None:
    from edged.trust import keyring
    ring = keyring.open_ring(given.ring, keyring.read_passphrase(given.passphrase_file))
    keyring.replace(given.ring, ring, keyring.read_passphrase(given.new_passphrase_file))


def _ring(given: argparse.Namespace) -> Any:
    from edged.trust import keyring
    return keyring.open_ring(given.keys, keyring.read_passphrase(given.passphrase_file))


def _signing_key(given: argparse.Namespace) -> Any:
    return _ring(given).signing_key


def _holder(given: argparse.Namespace) -> holder.Holder:
    return holder.of_owner(_ring(given))


def run_report(given: argparse.Namespace) -> None:
    with command.needs("owner"):
        from edged.model import bundled, network, package, report, rivals
        from edged.model.quantise import quantise
    original = bundled.load() if given.file is None else network.read(given.file)
    if given.plot is not None:
        _require_picture(given.plot)
    clips, labels, count = _compared(original, given)
    calibration = [] if given.package is not None and not given.rivals else _calibration(original, given.calibration)
    model = _opened(given, package) if given.package else _quantised(quantise, original, calibration, given.file)
    made = report.Report(original, model, labels)
    others = report.compare(made, _progress(clips, count, given.json), rivals.rivals(original, calibration)
                            if given.rivals else [], labels)
    if given.plot is not None:
        report.draw(made.figures, made.layers, given.plot)
    if given.json:
        print(json.dumps(dict(made.figures, layers=[one._asdict() for one in made.layers], rivals=others), indent=2))
        return
    print(report.as_text(made.figures, made.layers))
    if others:
        print("\n" + report.as_table(dict({"edged": made.figures}, **others)))


def _require_picture(path: str) -> None:
    """Before minutes are spent on what cannot be drawn."""
    if not path.endswith(PICTURES):
        raise UsageError("--plot {}: must end with {}".format(path, ", ".join(PICTURES)))
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise MissingInput("--plot {}: there is no folder {}".format(path, folder))
    with command.needs("owner"):
        importlib.import_module("matplotlib")


def _opened(given: argparse.Namespace, package: Any) -> Any:
    from edged.trust import keyring
    if given.keys is None or given.passphrase_file is None:
        raise UsageError("--package: --keys and --passphrase-file are needed, too")
    content = command.read_file(given.package)
    ring = keyring.open_ring(given.keys, keyring.read_passphrase(given.passphrase_file))
    _, key = ring.model_key(package.inspect(content).key_id)
    return package.open_package(content, key, ring.signing_key.public_key())[1]


def _compared(original: Any, given: argparse.Namespace) -> Tuple[Iterable[Any], Optional[List[int]], int]:
    """The clips to compare on, their labels, and how many there are."""
    from edged.camera import motion
    from edged.model import clips, heldout
    if given.on is not None:
        found, labels = clips.read(given.on, original)
        return found, labels, len(found)
    if original.labels != motion.LABELS or (original.frames, original.joints) != (300, motion.JOINTS):
        raise UsageError("--on: this network needs clips of its own: the generator makes other labels")
    if given.clips < 1:
        raise UsageError("--clips {}: at least 1".format(given.clips))
    labels = [heldout.label(index) for index in range(given.clips)]
    return (heldout.clip(index) for index in range(given.clips)), labels, given.clips


def _progress(clips: Iterable[Any], count: int, quiet: bool) -> Iterable[Any]:
    if quiet or not sys.stderr.isatty():
        return clips
    with command.needs("owner"):
        from tqdm import tqdm
    return tqdm(clips, total=count, desc="clips")


if __name__ == "__main__":
    sys.exit(main())
