"""`heizer group`: how far groups are, where they go on, and their end."""

import pytest

from harness import cli, wait
from harness import librdkafka as lib

pytestmark = pytest.mark.heizer

FIRST_MS = 1_700_000_000_000


@pytest.fixture
def topic(bootstrap, fresh):
    """Two partitions of ten records each, a second apart."""
    name = lib.create_topic(bootstrap, fresh("groups"), 2, retention_ms=-1)
    records = [{"value": b"%d" % n, "partition": p, "timestamp": FIRST_MS + 1000 * n} for p in (0, 1) for n in range(10)]
    lib.produce_all(bootstrap, name, records)
    return name


@pytest.fixture
def commit(bootstrap):
    """Commits offsets by partition for a group without members."""

    def commit(group, topic, offsets):
        client = lib.consumer(bootstrap, group)
        try:
            wanted = [lib.TopicPartition(topic, partition, offset) for partition, offset in offsets.items()]
            client.commit(offsets=wanted, asynchronous=False)
        finally:
            client.close()
        return group

    return commit


@pytest.fixture
def committed(heizer):
    """What a group has committed, by partition."""
    return lambda group: {row["partition"]: row["offset"] for row in heizer.json("group", "describe", group)[0]["offsets"]}


def test_a_group_is_described_with_its_lag_and_its_members(heizer, bootstrap, topic, commit, fresh):
    group = commit(fresh("g"), topic, {0: 4})
    (described,) = heizer.json("group", "describe", group)
    assert (described["group"], described["state"], described["members"]) == (group, "Empty", [])
    (row,) = described["offsets"]
    assert (row["topic"], row["offset"], row["end"], row["lag"], row["member"]) == (topic, 4, 10, 6, None)
    member = lib.consumer(bootstrap, group, client_id="the-member")
    try:
        member.subscribe([topic])
        wait.until("it has its partitions", lambda: member.poll(0.1) or lib.assignment_ids(member) == {0, 1})
        (described,) = heizer.json("group", "describe", group)
        assert described["state"] == "Stable" and described["assignor"] == "range"
        (seen,) = described["members"]
        assert seen["client"] == "the-member" and seen["topics"] == [topic] and "127.0.0.1" in seen["host"]
        assert [row["client"] for row in described["offsets"]] == ["the-member"] * 2
        assert described["offsets"][1]["offset"] is None
        assert "the-member" in heizer("group", "describe", group)
        assert f"{topic}:0,1" in heizer("group", "describe", group, "--members")
        states = {row[0]: row for row in heizer.rows("group", "describe", "--all", "--state")}
        assert states[group][1:4] == ["Stable", "1", "consumer"]
    finally:
        member.close()


def test_groups_are_listed_by_state(heizer, topic, commit, fresh):
    group = commit(fresh("g"), topic, {0: 1})
    listed = {row["group"]: row for row in heizer.json("group", "list")}
    assert (listed[group]["state"], listed[group]["type"]) == ("Empty", "classic")
    assert group in heizer("group", "list", "--state", "empty,dead")
    assert group not in heizer("group", "list", "--state", "Stable")


@pytest.mark.parametrize(
    ("aim", "expected"),
    [
        (("--to-earliest",), {0: 0, 1: 0}),
        (("--to-latest",), {0: 10, 1: 10}),
        (("--to-current",), {0: 5, 1: 7}),
        (("--to-offset", 3), {0: 3, 1: 3}),
        (("--to-offset", 99), {0: 10, 1: 10}),
        (("--shift-by", 2), {0: 7, 1: 9}),
        (("--shift-by", "-6"), {0: 0, 1: 1}),
        (("--by-duration", "PT1H"), {0: 10, 1: 10}),
        (("--by-duration", "P36500D"), {0: 0, 1: 0}),
        (("--to-datetime", "2023-11-14T22:13:23.500"), {0: 4, 1: 4}),
        (("--to-datetime", FIRST_MS + 3500), {0: 4, 1: 4}),
    ],
)
def test_a_group_goes_on_where_it_is_told(heizer, topic, commit, committed, fresh, aim, expected):
    group = commit(fresh("g"), topic, {0: 5, 1: 7})
    reset = ("group", "reset", group, "--topic", topic, *aim)
    planned = heizer.json(*reset)
    assert not planned["executed"]
    assert {row["partition"]: row["new"] for row in planned["offsets"]} == expected
    assert "--execute" in heizer(*reset, "--dry-run")
    assert committed(group) == {0: 5, 1: 7}, "without --execute nothing changes"
    assert heizer.json(*reset, "--execute")["executed"]
    assert committed(group) == expected


def test_a_reset_keeps_to_its_partitions_and_notes_what_it_clamps(heizer, failing, topic, commit, committed, fresh):
    group = commit(fresh("g"), topic, {0: 5})
    (row,) = heizer.json("group", "reset", group, "--topic", f"{topic}:0", "--to-offset", 99)["offsets"]
    assert (row["current"], row["new"]) == (5, 10) and "last" in row["note"]
    heizer("group", "reset", group, "--all-topics", "--to-offset", 2, "--execute")
    assert committed(group) == {0: 2}
    told = failing("group", "reset", group, "--topic", topic, "--shift-by", 1, code=1)
    assert f"{topic}-1" in told
    assert "no partition 2" in failing("group", "reset", group, "--topic", f"{topic}:2", "--to-earliest", code=1)
    new = fresh("new")
    assert new in failing("group", "reset", new, "--all-topics", "--to-earliest", code=1)
    heizer("group", "reset", new, "--topic", f"{topic}:1", "--to-offset", 9, "--execute")
    assert committed(new) == {1: 9}, "a group may begin with a reset"
    read = heizer("consume", topic, "--group", new, "--max-messages", 1, "--timeout-ms", 20_000)
    assert read == "9\n"


def test_what_is_exported_is_taken_from_a_file(heizer, failing, topic, commit, committed, fresh, tmp_path):
    group, other = commit(fresh("g"), topic, {0: 5, 1: 7}), fresh("g")
    exported = heizer("group", "reset", group, "--all-topics", "--to-current", "--export")
    assert exported == f"{topic},0,5\n{topic},1,7\n"
    file = tmp_path / "offsets.csv"
    file.write_text(exported)
    heizer("group", "reset", other, "--from-file", file, "--execute")
    assert committed(other) == {0: 5, 1: 7}
    heizer("group", "reset", other, "--from-file", "-", "--execute", stdin=f"{other},{topic},1,99\nelse,{topic},0,1\n")
    assert committed(other) == {0: 5, 1: 10}
    file.write_text(f"{topic},0,5\n{topic},one,2\n")
    told = failing("group", "reset", other, "--from-file", file, code=1)
    assert str(file) in told and "line 2" in told
    missing = tmp_path / "missing.csv"
    assert str(missing) in failing("group", "reset", other, "--from-file", missing, code=1)
    gone = fresh("gone")
    assert gone in failing("group", "reset", other, "--from-file", "-", stdin=f"{gone},0,1\n", code=1)


def test_a_group_with_members_is_left_alone_and_they_are_named(heizer, failing, bootstrap, topic, committed, fresh):
    group = fresh("g")
    member = lib.consumer(bootstrap, group, client_id="busy-reader")
    try:
        member.subscribe([topic])
        wait.until("it has its partitions", lambda: member.poll(0.1) or lib.assignment_ids(member) == {0, 1})
        for verb in (
            ("reset", group, "--topic", topic, "--to-earliest"),
            ("reset", group, "--topic", topic, "--to-earliest", "--execute"),
            ("delete", group),
        ):
            told = failing("group", *verb, code=1)
            assert group in told and "1 member" in told and "busy-reader" in told
        assert committed(group) == {0: None, 1: None}
    finally:
        member.close()


def test_groups_and_their_offsets_are_deleted(heizer, failing, topic, commit, committed, fresh):
    group, other = commit(fresh("g"), topic, {0: 5, 1: 7}), commit(fresh("g"), topic, {0: 1})
    heizer("group", "delete-offsets", group, "--topic", f"{topic}:1")
    assert committed(group) == {0: 5}
    assert topic in failing("group", "delete-offsets", group, "--topic", f"{topic}:1", code=1)
    heizer("group", "delete-offsets", other, "--topic", topic)
    missing = fresh("missing")
    done = cli.run("group", "delete", missing, group, "--bootstrap-server", heizer.bootstrap)
    assert done.returncode == 1 and missing in done.stderr and done.stdout == f"deleted {group}\n"
    assert group not in heizer("group", "list")
    for verb in (("describe", missing), ("delete", missing), ("delete-offsets", missing, "--topic", topic)):
        assert f"{missing} does not exist" in failing("group", *verb, code=1)
