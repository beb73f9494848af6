"""The catalogue is closed and complete, and an event tells neither secrets nor skeletons."""

import ast
import io
import json
import logging
import re
from pathlib import Path

import pytest

from edged import edgectl, events
from edged.events import BY_NAME, EVENTS, emit

ROOT = Path(__file__).resolve().parent.parent

# Logged by nobody any more: their ids are not given again.
RETIRED = ()


@pytest.fixture
def logged():
    """(logger, function that gives what was logged as lines of text, or as values of JSON)"""
    log = logging.getLogger("edged.test_events")
    log.setLevel(logging.INFO)
    log.propagate = False
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    log.addHandler(handler)

    def lines(form="text"):
        said = stream.getvalue().splitlines()
        return said if form == "text" else list(map(json.loads, said))

    lines.handler = handler
    yield log, lines
    log.removeHandler(handler)


def emitted():
    """(possible names of the event, names of fields, place) of every emit(...) in the sources"""
    for path in sorted((ROOT / "edged").rglob("*.py")):
        if path.name == "events.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
            for call in calls(function, "emit"):
                place = "{}:{}".format(path.relative_to(ROOT), call.lineno)
                yield names_of(call.args[1], function, tree), [keyword.arg for keyword in call.keywords], place


def calls(tree, name):
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)
            and (node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)) == name]


def names_of(given, function, tree):
    """What the name of an event can be: literals, or those that callers in the same file hand to the function."""
    if isinstance(given, ast.Constant):
        return [given.value]
    if isinstance(given, ast.IfExp):
        return names_of(given.body, function, tree) + names_of(given.orelse, function, tree)
    parameters = [argument.arg for argument in function.args.args if argument.arg != "self"]
    if not isinstance(given, ast.Name) or given.id not in parameters:
        return []
    at = parameters.index(given.id)
    return [name for call in calls(tree, function.name) if len(call.args) > at
            for name in names_of(call.args[at], ast.FunctionDef(args=ast.arguments(args=[])), tree)]


def test_every_event_that_the_sources_name_is_in_the_catalogue():
    found = list(emitted())
    assert len(found) > 5
    for names, fields, place in found:
        assert names, "{}: emit() of a name that cannot be read from the source".format(place)
        for name in names:
            assert name in BY_NAME, "{}: {}".format(place, name)


def test_every_field_that_the_sources_name_may_be_logged():
    for _, fields, place in emitted():
        for field in fields:
            assert field is not None, "{}: fields that cannot be read from the source".format(place)
            assert field not in events._TAKEN and not events._FORBIDDEN.search(field), "{}: {}".format(place, field)


def test_every_event_of_the_catalogue_is_logged_somewhere():
    named = {name for names, _, _ in emitted() for name in names}
    assert sorted(set(BY_NAME) - named - set(RETIRED)) == []


def test_ids_and_names_are_unique():
    assert len({event.id for event in EVENTS}) == len({event.name for event in EVENTS}) == len(EVENTS)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_every_event_has_form_meaning_and_remedy(event):
    assert re.fullmatch(r"E[1-6]\d\d", event.id)
    assert re.fullmatch(r"[a-z]+(_[a-z]+)+", event.name)
    assert event.level in (logging.INFO, logging.WARNING, logging.ERROR)
    for text in (event.meaning, event.remedy):
        assert len(text) > 8 and text.isprintable() and not text.endswith(".")
    assert event.level == logging.INFO or event.remedy != "none needed"


# The ids are for ever: whoever watches a node's log goes by them. Append; change none.
STABLE = {"E101": "clip_evaluated", "E102": "clip_failed", "E201": "enclave_ready", "E202": "enclave_unprotected",
          "E203": "enclave_ended", "E301": "camera_lost", "E302": "camera_live", "E303": "camera_ended",
          "E501": "process_started", "E502": "process_ended", "E503": "process_refused", "E504": "process_done",
          "E505": "process_killed", "E506": "process_failed", "E507": "node_stopping", "E508": "process_hung"}


@pytest.mark.parametrize("number", sorted(STABLE))
def test_an_id_keeps_its_event(number):
    assert {event.id: event.name for event in EVENTS}[number] == STABLE[number]


def test_an_event_is_one_line_of_text(logged):
    log, lines = logged
    emit(log, "process_ended", process="camera gate", how="SIGKILL", after_s=1.23456789, again=None, ok=True, count=3)
    assert lines() == ['process_ended process="camera gate" how=SIGKILL after_s=1.23457 again=none ok=true count=3']


def test_an_event_is_one_object_of_json(logged):
    log, lines = logged
    lines.handler.setFormatter(events.JsonFormatter())
    emit(log, "camera_lost", camera="gate", reason="line\nbreak", digest=b"\x00\xff", after_s=0.5)
    assert len(lines("text")) == 1
    shown, = lines("json")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", shown.pop("time"))
    assert shown == {"level": "warning", "logger": "edged.test_events", "id": "E301", "event": "camera_lost",
                     "camera": "gate", "reason": "line\nbreak", "digest": "00ff", "after_s": 0.5}


def test_other_messages_are_json_too_with_their_traceback(logged):
    log, lines = logged
    lines.handler.setFormatter(events.JsonFormatter())
    log.warning("%s: %d", "text", 5)
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("it broke")
    first, second = lines("json")
    assert (first["message"], first["level"]) == ("text: 5", "warning")
    assert "id" not in first and "event" not in first
    assert second["message"] == "it broke" and "ValueError: broken" in second["traceback"]


@pytest.mark.parametrize("value", ["a\nb", "a\x1b[31mb", "a b", "a=b", 'a"b', "", "\u2028", "a\\b"])
def test_no_value_can_pose_as_another_line_or_field(logged, value):
    log, lines = logged
    emit(log, "camera_lost", camera=value, reason="r")
    line, = lines()
    assert "\x1b" not in line and "\u2028" not in line
    assert line.startswith('camera_lost camera="') and line.endswith('" reason=r')


def test_a_long_value_is_cut(logged):
    log, lines = logged
    emit(log, "camera_lost", reason="x" * 5000)
    assert len(lines()[0]) < 600


def test_a_name_that_is_not_in_the_catalogue_is_refused(logged):
    with pytest.raises(ValueError, match="no event"):
        emit(logged[0], "camera_lots")
    assert logged[1]() == []


@pytest.mark.parametrize("field", [
    "key", "camera_key", "secret", "curve_secret", "password", "mask", "pad", "seed", "keypoints", "coordinates",
    "skeleton", "frame_data", "picture", "logits", "event", "id", "time"])
def test_a_field_that_promises_a_secret_or_hides_another_is_refused(logged, field):
    with pytest.raises(ValueError, match="may not be logged"):
        emit(logged[0], "camera_lost", **{field: 1})
    assert logged[1]() == []


@pytest.mark.parametrize("field", ["key_id", "frames", "number", "session", "name", "log"])
def test_other_fields_are_taken(logged, field):
    emit(logged[0], "camera_lost", **{field: 1})
    assert logged[1]() == ["camera_lost {}=1".format(field)]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_longer_than_a_digest_are_refused(logged, kind):
    emit(logged[0], "camera_lost", digest=kind(bytes(32)))
    with pytest.raises(ValueError, match="33 bytes"):
        emit(logged[0], "camera_lost", digest=kind(bytes(33)))
    assert logged[1]() == ["camera_lost digest=" + "00" * 32]


def test_what_is_refused_is_refused_even_where_the_level_is_not_shown(logged):
    logged[0].setLevel(logging.CRITICAL)
    with pytest.raises(ValueError):
        emit(logged[0], "camera_lost", secret=1)


def test_json_lines_have_no_numbers_that_json_does_not_know(logged):
    log, lines = logged
    lines.handler.setFormatter(events.JsonFormatter())
    emit(log, "camera_lost", a=float("nan"), b=float("inf"), c=1e30)
    shown = json.loads(lines()[0], parse_constant=lambda name: pytest.fail(name))
    assert (shown["a"], shown["b"], shown["c"]) == ("nan", "inf", 1e30)


@pytest.mark.parametrize("form", ["text", "json"])
def test_set_up_shows_events_and_nothing_twice(form):
    import subprocess
    import sys

    script = ("import logging, sys; from edged import events; logging.basicConfig(level=logging.WARNING)\n"
              "events.set_up(sys.argv[1]); events.emit(logging.getLogger('edged.x'), 'camera_live', camera='gate')")
    done = subprocess.run([sys.executable, "-c", script, form], cwd=str(ROOT), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, universal_newlines=True, check=True)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    if form == "text":
        assert done.stderr == "edged.x: camera_live camera=gate\n"
    else:
        assert json.loads(done.stderr)["event"] == "camera_live"


def test_edgectl_prints_the_catalogue(capsys):
    assert edgectl.main(["events"]) == 0
    text = capsys.readouterr().out
    assert edgectl.main(["events", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in rows] == [event.id for event in EVENTS]
    for event, row in zip(EVENTS, rows):
        assert row == {"id": event.id, "name": event.name, "level": logging.getLevelName(event.level).lower(),
                       "meaning": event.meaning, "remedy": event.remedy}
        assert "{} {} (".format(event.id, event.name) in text and event.meaning in text and event.remedy in text
