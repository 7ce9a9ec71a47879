"""The same requests to Heizer and to Apache Kafka, and their answers compared field by field.

What has to differ (ids, ports, clocks) is made alike before the comparison. What differs on purpose stands in
`differential/accepted.py` with its reason; an entry that explains nothing any more fails the test.
"""

import re

import pytest

from differential import admin, data, groups, topics
from differential.accepted import ACCEPTED
from differential.side import Side
from harness.server import ApacheKafka, Heizer

pytestmark = [pytest.mark.jvm, pytest.mark.slow, pytest.mark.heizer]

SCENARIOS = {
    name.removeprefix("scenario_"): function
    for module in (topics, data, groups, admin)
    for name, function in vars(module).items()
    if name.startswith("scenario_")
}


def differences(ours, theirs, at: str = "") -> list[tuple[str, object, object]]:
    """(field, Heizer's value, Kafka's value) wherever they differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        found = []
        for key in sorted({*ours, *theirs}):
            found += differences(ours.get(key, "absent"), theirs.get(key, "absent"), f"{at}.{key}" if at else str(key))
        return found
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs))
        return [found for n, pair in pairs for found in differences(*pair, f"{at}[{n}]")]
    return [] if ours == theirs else [(at, ours, theirs)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Heizer and Apache Kafka, set up alike."""
    settings = {"group.initial.rebalance.delay.ms": 0, "offsets.topic.num.partitions": 3}
    servers = [kind(tmp_path_factory.mktemp(kind.__name__), settings) for kind in (Heizer, ApacheKafka)]
    try:
        yield [server.start() for server in servers]
        for server in servers:
            server.close()
    finally:
        for server in servers:
            server.abandon()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_heizer_answers_as_kafka_does(pair, scenario):
    sides = [Side(server.bootstrap, scenario) for server in pair]
    for side in sides:
        SCENARIOS[scenario](side)
    ours, theirs = (side.steps for side in sides)
    unexplained, used = judge(scenario, ours, theirs)
    assert not unexplained, "\n".join(unexplained)
    idle = [entry for entry in ACCEPTED if entry[0].startswith(scenario + ": ") and entry not in used]
    assert not idle, f"these differences are gone: {idle}"


def judge(scenario: str, ours: dict, theirs: dict) -> tuple[list[str], list]:
    """What differs without a reason, as lines to read, and the reasons that were needed."""
    assert list(ours) == list(theirs), "the same steps on both sides"
    unexplained, used = [], []
    for step in ours:
        for field, here, there in differences(ours[step], theirs[step]):
            label = f"{scenario}: {step}"
            why = [entry for entry in ACCEPTED if re.match(entry[0], label) and re.match(entry[1], field)]
            used += why
            if not why:
                unexplained.append(f"{label} | {field}: Heizer {_short(here)}, Kafka {_short(there)}")
    return unexplained, used


def _short(value) -> str:
    text = repr(value)
    return text if len(text) < 200 else text[:200] + "…"
