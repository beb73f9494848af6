"""Whether an agreement ended on every node, so that no record of it is on its way any more.

The journal tells what came, the allow-list who may have more. A node that was not heard, or that neither said that the
agreement ended nor was heard under a later one, may have been cut off, with alerts on its disk that nothing else opens.
"""

from typing import Collection, Dict, List, Sequence

from edged.alerts import nodes
from edged.alerts.cityconfig import CityConfig
from edged.alerts.journal import Journal, NodeRow
from edged.alerts.nodes import Listed
from edged.alerts.sequence import EpochState, Under
from edged.errors import KeyRefused, UsageError
from edged.trust.agreement import Agreement


def require_nodes(configs: Sequence[CityConfig], names: Collection[str]) -> None:
    """Raises what reading raises, UsageError where none of these subscribers takes anything of a node so named."""
    present = {name for config in configs for name in _present(config)}
    for name in names:
        if name not in present:
            raise UsageError("--lose {}: no such node is in {}, or its key is revoked: leave it out".format(
                name, ", ".join(sorted({str(config.nodes) for config in configs}))))


def _present(config: CityConfig) -> Dict[str, Listed]:
    return {one.name: one for one in nodes.read_nodes(str(config.nodes)) if not one.revoked}


def require_ended(config: CityConfig, agreement: Agreement, others: Sequence[Agreement], lose: Collection[str]) -> int:
    """How many records that may be of it, and are given up, did not come. others : that are listed beside it.
    lose : names of nodes whose records are given up.

    Raises what reading raises, SpoolError, KeyRefused (a line for each node that may have records of it yet; or some
    were not passed on).
    """
    present = _present(config)
    later = {one.digest for one in others if one.number > agreement.number}
    faults, missing, waiting = [], 0, 0
    if not config.journal.exists():
        faults = [_never_heard(agreement, name) for name in sorted(present) if name not in lose]
    else:
        with Journal(str(config.journal), config.keep_rows) as journal:
            waiting = sum(entry.content["digest"] == agreement.digest for _, entry in journal.untaken()
                          if entry.sealed is not None)
            rows = journal.nodes()
            for name, listed in sorted(present.items()):
                row = rows.get(name)
                if row is None or listed.node not in (None, row.node):
                    faults += [] if name in lose else [_never_heard(agreement, name)]
                    continue
                states = journal.epochs(row.node)
                owed = _owed(states, agreement.digest)
                missing += owed
                faults += [] if name in lose else _judged(agreement, row, states, later, owed)
    if waiting:
        raise KeyRefused("agreement {}: {} of its records were not passed on yet: let `edged-city listen` run "
                         "first".format(agreement.number, waiting))
    if faults:
        raise KeyRefused("\n".join(faults))
    return missing


def _never_heard(agreement: Agreement, name: str) -> str:
    return "agreement {}: {} was never heard: wait for it, revoke it, or give its records up with --lose {}".format(
        agreement.number, name, name)


def _judged(agreement: Agreement, row: NodeRow, states: Sequence[EpochState], later: Collection[bytes],
            owed: int) -> List[str]:
    """Why this node may have records of it yet; nothing, or one line."""
    if any(agreement.digest in one.agreements() for one in row.epochs):
        return ["agreement {}: did not end on {}: wait for the next one there, or revoke a node that is gone, or give "
                "its records up with --lose {}".format(agreement.number, row.name, row.name)]
    ended = any(state.under.get(agreement.digest, Under()).end is not None for state in states)
    if not ended and not any(digest in later for state in states for digest in state.under):
        return ["agreement {}: {} was not heard under a later one: wait until it is, revoke it, or give its records "
                "up with --lose {}".format(agreement.number, row.name, row.name)]
    if owed:
        return ["agreement {}: {} record(s) of {} that may be under it did not come: wait for them, or give them up "
                "with --lose {}".format(agreement.number, owed, row.name, row.name)]
    return []


def _owed(states: Sequence[EpochState], digest: bytes) -> int:
    """Records that did not come and may be under this agreement: none after its end, in that epoch or a later one."""
    ended = min((state.counter for state in states if state.counter is not None and
                 state.under.get(digest, Under()).end is not None), default=None)
    count = 0
    for state in states:
        if ended is not None and state.counter is not None and state.counter > ended:
            continue
        end = state.under.get(digest, Under()).end
        count += sum((last if end is None else min(last, end - 1)) - first + 1 for gap in state.gaps
                     for first, last in gap.missing if end is None or first < end)
    return count
