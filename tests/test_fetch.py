"""Fetching pose networks: whole and pinned or not at all. The publisher is a server on loopback."""

import hashlib
import os
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edged.camera import fetch, zoo
from edged.errors import MissingInput, UsageError, VerificationFailed

XML, BIN = b"<net/>", bytes(range(256)) * 900


class Publisher:
    """answers : what each path is answered with: bytes, a status, or a function of the request handler"""

    def __init__(self):
        self.answers, self.asked = {"/models/net.xml": XML, "/models/net.bin": BIN}, []
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                publisher.asked.append(self.path)
                answer = publisher.answers.get(self.path, 404)
                if isinstance(answer, list):
                    answer = answer.pop(0)
                if callable(answer):
                    answer(self)
                elif isinstance(answer, int):
                    self.send_error(answer)
                else:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)

            def log_message(self, *words):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = "http://127.0.0.1:{}/models/".format(self.server.server_port)
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture
def publisher(monkeypatch):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    made = Publisher()
    net = replace(zoo.MODELS["human-pose-estimation-0001-fp32"], name="net", file="net.xml",
                  sha256=hashlib.sha256(XML).hexdigest(), weights=("net.bin", hashlib.sha256(BIN).hexdigest()),
                  published=(made.address, (len(XML), len(BIN))))
    monkeypatch.setitem(zoo.MODELS, "net", net)
    yield made
    made.close()


def left(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_network_is_fetched_once_and_read_as_pinned(publisher, tmp_path):
    folder = tmp_path / "new" / "folder"
    assert fetch.fetch("net", folder) == [folder / "net.xml", folder / "net.bin"]
    assert zoo.read("net", folder) == (XML, BIN) and left(folder) == ["net.bin", "net.xml"]
    assert fetch.fetch("net", folder) == [] and len(publisher.asked) == 2


def test_what_is_damaged_is_fetched_again_and_the_rest_is_not(publisher, tmp_path):
    fetch.fetch("net", tmp_path)
    (tmp_path / "net.bin").write_bytes(BIN[:-1])
    assert fetch.fetch("net", tmp_path) == [tmp_path / "net.bin"] and publisher.asked.count("/models/net.xml") == 1
    assert zoo.read("net", tmp_path) == (XML, BIN)


def test_a_mirror_takes_the_publishers_place(publisher, tmp_path):
    publisher.answers = {"/mirror/net.xml": XML, "/mirror/net.bin": BIN}
    fetch.fetch("net", tmp_path, publisher.address.replace("/models/", "/mirror"))
    assert zoo.read("net", tmp_path) == (XML, BIN)


@pytest.mark.parametrize("content", [b"", BIN[:-1], BIN + b"x", b"x" + BIN[1:]], ids=["empty", "cut", "long", "other"])
def test_another_content_is_refused_and_what_was_there_stays(publisher, tmp_path, content):
    (tmp_path / "net.bin").write_bytes(b"what was there")
    publisher.answers["/models/net.bin"] = content
    with pytest.raises(VerificationFailed, match="net.bin.*nothing was kept") as caught:
        fetch.fetch("net", tmp_path)
    assert caught.value.exit_code == 76 and "\n" not in str(caught.value)
    assert left(tmp_path) == ["net.bin", "net.xml"] and (tmp_path / "net.bin").read_bytes() == b"what was there"


def test_a_server_that_sends_without_end_is_cut_off(publisher, tmp_path):
    sent = []

    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        try:
            while len(sent) < 100000:
                handler.wfile.write(b"x" * 65536)
                sent.append(1)
        except OSError:
            pass

    publisher.answers["/models/net.bin"] = endless
    with pytest.raises(VerificationFailed):
        fetch.fetch("net", tmp_path)
    assert len(sent) < 1000 and left(tmp_path) == ["net.xml"]


def hang(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(BIN)))
    handler.end_headers()
    handler.wfile.write(BIN[:1000])
    handler.wfile.flush()
    threading.Event().wait(3)


def breaks_off(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(BIN)))
    handler.end_headers()
    handler.wfile.write(BIN[:1000])


@pytest.mark.parametrize("answer, tries", [(404, 1), (403, 1), (503, fetch.TRIES), (hang, fetch.TRIES),
                                           (breaks_off, fetch.TRIES)])
def test_what_cannot_be_had_is_one_line_and_leaves_nothing(publisher, tmp_path, answer, tries):
    publisher.answers["/models/net.bin"] = answer
    with pytest.raises(MissingInput, match="net.bin: cannot be fetched: .*--from") as caught:
        fetch.fetch("net", tmp_path, timeout_s=0.3)
    assert caught.value.exit_code == 66 and "\n" not in str(caught.value)
    assert publisher.asked.count("/models/net.bin") == tries and left(tmp_path) == ["net.xml"]


@pytest.mark.parametrize("first", [503, hang, breaks_off])
def test_what_passes_is_tried_again(publisher, tmp_path, first):
    publisher.answers["/models/net.bin"] = [first, BIN]
    fetch.fetch("net", tmp_path, timeout_s=0.3)
    assert zoo.read("net", tmp_path) == (XML, BIN)


def test_a_server_that_drips_is_given_up(publisher, tmp_path, monkeypatch):
    def drips(handler):
        handler.send_response(200)
        handler.end_headers()
        try:
            for byte in BIN[:200]:
                handler.wfile.write(bytes([byte]))
                handler.wfile.flush()
                threading.Event().wait(0.02)
        except OSError:
            pass

    monkeypatch.setattr(fetch, "WHOLE_S", 0.2)
    publisher.answers["/models/net.bin"] = drips
    with pytest.raises(MissingInput, match="not whole within 0.2 s"):
        fetch.fetch("net", tmp_path)
    assert left(tmp_path) == ["net.xml"]


def test_nobody_there_is_one_line(publisher, tmp_path):
    with pytest.raises(MissingInput, match="refused"):
        fetch.fetch("net", tmp_path, "http://127.0.0.1:1")


@pytest.mark.parametrize("base", ["file:///etc", "ftp://127.0.0.1/x", "/etc", "http://[", ""])
def test_only_addresses_of_http_are_taken(publisher, tmp_path, base, monkeypatch):
    if not base:
        net = replace(zoo.MODELS["net"], published=("file:///etc", (1, 1)))
        monkeypatch.setitem(zoo.MODELS, "net", net)
    with pytest.raises(MissingInput, match="cannot be fetched"):
        fetch.fetch("net", tmp_path, base or None)
    assert publisher.asked == []


def test_a_folder_that_cannot_be_written_is_one_line(publisher, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MissingInput, match="file"):
        fetch.fetch("net", tmp_path / "file")


def test_a_network_that_nobody_publishes_is_refused(tmp_path):
    with pytest.raises(UsageError, match="edged-pose: nobody publishes .*human-pose-estimation-0001-fp32"):
        fetch.fetch("edged-pose", tmp_path)


def test_the_command_says_what_it_did_and_how_to_use_it(publisher, tmp_path, capsys):
    assert fetch.main(["net", "--to", str(tmp_path)]) == 0
    assert fetch.main(["net", "--to", str(tmp_path)]) == 0
    said = capsys.readouterr().err
    assert str(tmp_path / "net.bin") in said and "net: is there" in said and "--pose net" in said
    assert fetch.main(["nobody", "--to", str(tmp_path)]) == 78
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_all_that_is_published_has_two_hashes_and_sizes():
    assert fetch.published() == ["human-pose-estimation-0001-fp32"]
    model = zoo.model(fetch.published()[0])
    assert len(model.files) == len(model.published[1]) == 2 and model.published[0].startswith("https://")


def test_the_script_is_that_command():
    assert "python -m edged.camera.fetch" in (Path(__file__).parent.parent / "scripts" / "fetch-models").read_text()
