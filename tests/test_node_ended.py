"""A whole node whose agreement ends: heartbeats go on, and within a minute the city and the operator know that nothing
is judged, at each further start of theirs, too."""

import time
from dataclasses import replace

from attacks.networks import integer_model
from edged import edgectl
from edged.alerts.keys import read_signing_key
from edged.alerts.liveness import JudgesNothing
from edged.alerts.record import Claim, Heartbeat
from edged.alerts.reports import AgreementEnd, Received, claimed
from edged.site import Site, Terms, loopback_address
from edged.trust.agreement import open_agreement, sign
from screen import Screen
from test_chaos import Node, wait_for

SOON_S = 15
MINUTE_S = 60


def said(screen):
    """Of the camera, by the node, in order."""
    return [claimed(event.record.data)["state"] for event in screen.of(Received) if isinstance(event.record, Claim)]


def has_ended(screen):
    return any(event.left_s <= 0 and event.nodes == ("demo-node",) for event in screen.of(AgreementEnd))


def test_the_end_of_an_agreement_is_on_the_screen_within_a_minute(tmp_path_factory, capsys):
    site = Site(str(tmp_path_factory.mktemp("e")), integer_model(5, ((8, 1), (8, 2)), 30, 18), "ended",
                Terms((("label 0", 0.5, 5),), beacon_period_s=1), {"gate": ['source = "generator:7"', "loop = true"]},
                loopback_address(), threads=1, log="json")
    until_s = int(time.time()) + SOON_S
    signed = sign(replace(open_agreement(site.signed), until_s=until_s).encode(), site.owner,
                  read_signing_key(str(site.city)))
    for path in (site.node / "agreement.cose", site.city / "agreement-1.cose"):
        assert path.read_bytes() == site.signed
        path.write_bytes(signed)
    screen, node = Screen(site), Node(site)
    try:
        wait_for(lambda: said(screen) == ["live"] and screen.observations)
        assert [event.left_s > 0 for event in screen.of(AgreementEnd)] == [True], "near, and not over"
        time.sleep(max(0.0, until_s - time.time()))
        left_s = MINUTE_S - (time.time() - until_s)
        wait_for(lambda: has_ended(screen) and screen.of(JudgesNothing) and said(screen)[-1] == "waits", left_s)
        beats = len([event for event in screen.of(Received) if isinstance(event.record, Heartbeat)])
        assert beats > SOON_S / 2, "it looked alive"
        asked = ["--config", str(site.config)]
        assert edgectl.main(["status"] + asked) == 69 and edgectl.main(["config", "check"] + asked) == 78
        lines = capsys.readouterr().err.splitlines()
        assert any("camera gate: waits: agreement 1 ended at " in line for line in lines)
        assert len([line for line in lines if "edgectl rotate" in line]) == 2
        assert node.events("agreement_ended") and node.events("agreement_ends")
        screen.close()
        screen = Screen(site)  # the city looks again, on another day
        wait_for(lambda: has_ended(screen) and screen.of(JudgesNothing), MINUTE_S)
    finally:
        node.stop()
        screen.close()
