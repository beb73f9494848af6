"""systemd/keyserver.toml.example: what an operator copies is what the key server reads."""

import dataclasses
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="the key server needs it: pip install 'edged[server]'")

from edged import strict  # noqa: E402
from edged.keyserver import config as configs  # noqa: E402
from keyserver_cases import city, office, ring, site, terms  # noqa: E402, F401

EXAMPLE = Path(__file__).resolve().parent.parent / "systemd" / "keyserver.toml.example"


def test_the_example_names_every_key_with_the_default_that_it_has(tmp_path):
    text = EXAMPLE.read_text(encoding="ascii")
    as_it_is, with_all = (tmp_path / name for name in ("as-it-is.toml", "with-all.toml"))
    as_it_is.write_text(text)
    with_all.write_text(re.sub(r"^#(?=[\[a-z_]+.* ?[=\]])", "", text, flags=re.M))
    found, spelt = configs.load(str(as_it_is)), configs.load(str(with_all))
    written = strict.parse("example", with_all.read_bytes(), configs._KEYS)
    assert all(key in written for key in configs._KEYS)
    for name, fields in (("policy", ["allow_emulated", "allow_debug", "allow_unfused", "nonce_s", "expires_s",
                                     "silent_s"]),
                         ("limits", [one.name for one in dataclasses.fields(configs.Limits)])):
        assert sorted(fields) == sorted(re.findall(r"^#?(\w+) = ", text.split("[" + name + "]")[1].split("\n\n")[0],
                                                   re.M)), name
    assert dataclasses.replace(spelt, path=found.path, first_slot=None, nodes={}) == found
    assert list(spelt.nodes.values()) == ["crossing-7"] and spelt.first_slot == 0


def test_the_example_names_whatever_is_read_anew_and_whom_an_empty_list_of_nodes_lets_in():
    """A line that says less than the key server does has an operator wait for a restart, or trust a stranger."""
    text = " ".join(EXAMPLE.read_text(encoding="ascii").replace("\n# ", " ").split())
    assert "named here (agreement, root, lists, reference values, devices) is read anew" in text
    assert "Without any: every node whose device is believed, as said above." in text


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_a_certificate_made_as_the_example_says_serves(site):
    (line,) = [line[2:] for line in EXAMPLE.read_text(encoding="ascii").splitlines() if line.startswith("# openssl ")]
    for name in ("server.pem", "server.key"):
        (site.folder / name).unlink()
    subprocess.run(shlex.split(line.replace("DNS:keys.example.org", "DNS:localhost,IP:127.0.0.1")), check=True,
                   cwd=str(site.folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with site.serving() as server:
        assert len(server.grants(server.evidence())) == 3
