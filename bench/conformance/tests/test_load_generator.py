"""`heizer-load`: each way to produce and to consume, what it reports, and what it refuses."""

import json
import subprocess

import pytest

from harness import librdkafka as lib
from harness import paths

TIMEOUT_S = 60


@pytest.fixture
def load(bootstrap, fresh, tmp_path):
    """Runs a workload that must succeed on a topic of its own; returns its JSON."""
    name = fresh("load")

    def run(workload, *arguments):
        file, result = tmp_path / "workload.toml", tmp_path / "result.json"
        file.write_text(workload)
        chosen = ("--bootstrap-server", bootstrap, "--set", f"topic.name={name}", "--json", str(result))
        done = _run("run", str(file), *chosen, *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(result.read_text())

    run.topic = name
    return run


def _run(*arguments):
    line = [str(paths.heizer_load()), *arguments]
    return subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S)


def _workload(clients, partitions=4, measure_s=1, warmup_s=0.2, more=""):
    return (
        f'name = "w"\nmeasure_s = {measure_s}\nwarmup_s = {warmup_s}\nlimit_s = 30\n{more}\n'
        f'[topic]\nname = "w"\npartitions = {partitions}\n{clients}'
    )


def _assert_sound(result, readers):
    """Everything that was acknowledged has come to so many readers of everything; it is the report that says so."""
    verified = dict(result["verified"])
    assert verified.pop("records") >= readers * result["produced"]["records"] > 0
    assert not any(verified.values()), verified


def test_a_closed_loop_counts_what_the_broker_has_and_readers_get_it_all(load, bootstrap):
    result = load(
        _workload('[[producers]]\ncount = 3\nrecord_bytes = 200\nbatch_bytes = 2000\nin_flight = 4\n[[consumers]]\n')
    )
    _assert_sound(result, readers=1)
    produced = result["produced"]
    assert produced["records"] == produced["batches"] * 10 and produced["bytes"] == produced["records"] * 200
    assert result["ack_latency_us"]["count"] == produced["records"]
    # With what the warm-up has produced.
    assert lib.total_records(bootstrap, load.topic, partitions=4) == result["verified"]["records"]


@pytest.mark.parametrize("acks", ["1", "0"])
def test_other_acks_lose_nothing_either(load, acks):
    result = load(_workload(f'[[producers]]\nacks = "{acks}"\nbatch_bytes = 4096\n[[consumers]]\n', measure_s=0.5))
    _assert_sound(result, readers=1)
    assert (result["ack_latency_us"]["count"] > 0) == (acks == "1"), "without an answer there is no latency"


def test_an_open_loop_keeps_its_rate_and_knows_when_each_record_was_due(load):
    producers = '[[producers]]\ncount = 4\nrate = 2000\nrecord_bytes = 100\nlinger_ms = 5\npartitions = "all"\n'
    result = load(_workload(producers + '[[consumers]]\n[[consumers]]\nassign = "spread"\ncount = 4\n'))
    _assert_sound(result, readers=2)
    assert result["produced"]["records"] == pytest.approx(2000 * result["seconds"], abs=8)
    for latency in ("ack_latency_us", "end_to_end_us"):
        assert 0 < result[latency]["p50"] <= result[latency]["p99"] <= result[latency]["max"]
    assert result["end_to_end_us"]["count"] == 2 * result["produced"]["records"]
    # The first of a batch has lingered before it was sent.
    assert result["ack_latency_us"]["max"] >= 5000
    curve = result["end_to_end_us"]["curve"]
    assert curve == sorted(curve) and curve[0][0] == 0.0


def test_keys_choose_the_partitions_as_other_clients_do(load, bootstrap, fresh):
    keyed = '[[producers]]\nrate = 1000\nkeys = 50\npartitions = "all"\nidempotence = true\nin_flight = 5\n'
    _assert_sound(load(_workload(keyed + "[[consumers]]\n")), readers=1)
    found = lib.read_topic(bootstrap, load.topic, partitions=4)
    ours = {message.key(): partition for partition, messages in found.items() for message in messages}
    other = lib.create_topic(bootstrap, fresh("load"), partitions=4)
    sent = lib.produce_all(bootstrap, other, ({"key": key} for key in ours), partitioner="murmur2")
    assert ours == {message.key(): message.partition() for message in sent} and len(ours) == 50


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_compressed_batches_come_back_whole(load, codec):
    clients = f'[[producers]]\ncompression = "{codec}"\nrate = 3000\nlinger_ms = 5\n'
    clients += "random_fraction = 0.5\n[[consumers]]\n"
    _assert_sound(load(_workload(clients, measure_s=0.5)), readers=1)


def test_members_of_a_group_share_the_records(load):
    clients = '[[producers]]\nrate = 2000\npartitions = "all"\n[[consumers]]\ncount = 3\ngroup = "shared"\n'
    result = load(_workload(clients), "--set", f"consumers.0.group={load.topic}")
    _assert_sound(result, readers=1)
    assert result["verified"]["records"] < 2 * 2000 * 1.5, "each record comes to one member"
    assert result["timeline_latency"] == "end_to_end"


def test_catching_up_reads_what_is_there_once(load):
    backlog = "[backlog]\nbytes = 20000000\nrecord_bytes = 1000\nbatch_bytes = 50000\n"
    consumers = '[[consumers]]\ncount = 4\nassign = "spread"\nfrom = "beginning"\nuntil = "end"\n'
    result = load(_workload(backlog + consumers, measure_s=0))
    assert result["consumed"]["records"] == result["verified"]["records"] == 20000
    assert result["consumed"]["bytes"] == 20_000_000
    assert 0 < result["consumed"]["caught_up_s"] == pytest.approx(result["seconds"], abs=0.1)


def test_a_replay_reads_the_newest_again_and_again(load):
    backlog = "[backlog]\nbytes = 4000000\nrecord_bytes = 1000\nbatch_bytes = 10000\n"
    replay = '[[consumers]]\ncount = 2\nfrom = "replay"\nreplay_bytes = 100000\n'
    result = load(_workload(backlog + replay, measure_s=0.5))
    assert result["consumed"]["records"] > 2 * 4 * 100 * 2, "more than twice the whole of it"
    assert result["verified"]["out_of_order"] == result["verified"]["missing"] == 0


@pytest.mark.heizer
def test_the_watched_process_has_its_costs_in_the_report(start_broker, tmp_path):
    broker = start_broker()
    file, result = tmp_path / "w.toml", tmp_path / "r.json"
    file.write_text(_workload("[[producers]]\ncount = 4\n", measure_s=2.1))
    arguments = ("--bootstrap-server", broker.bootstrap, "--watch-pid", str(broker.pid), "--json", str(result))
    done = _run("run", str(file), *arguments)
    assert done.returncode == 0, done.stderr
    told = json.loads(result.read_text())
    assert told["broker"]["user_s"] + told["broker"]["kernel_s"] > 0
    assert told["broker"]["resident_max_mib"] >= told["broker"]["resident_mib"] > 1
    assert [second["s"] for second in told["timeline"]] == [1, 2]
    assert all(second["broker_cpu_s"] > 0 and second["p99_us"] > 0 for second in told["timeline"])
    assert len(done.stderr.splitlines()) == 2, "a line a second"
    assert "acks" in done.stdout and "broker" in done.stdout


def test_another_number_of_partitions_is_refused(bootstrap, fresh, tmp_path):
    topic = lib.create_topic(bootstrap, fresh("load"), partitions=2)
    file = tmp_path / "w.toml"
    file.write_text(_workload("[[producers]]\n"))
    said = _refused("run", str(file), "--bootstrap-server", bootstrap, "--set", f"topic.name={topic}")
    assert topic in said and "has 2 partitions and the workload wants 4" in said


def test_what_cannot_run_is_refused_with_one_line(tmp_path):
    file = tmp_path / "w.toml"
    file.write_text(_workload("[[producers]]\n"))
    assert "127.0.0.1:1" in _refused("run", str(file), "--bootstrap-server", "127.0.0.1:1")
    assert "no-such.toml" in _refused("run", str(tmp_path / "no-such.toml"))
    assert "colour" in _refused("run", str(file), "--set", "producers.0.colour=red")
    assert "/proc/4294967295/stat" in _refused("run", str(file), "--watch-pid", "4294967295")
    file.write_text(_workload("[[producers]]\nrecord_bytes = 7\n"))
    said = _refused("check", str(file))
    assert str(file) in said and "producers.0.record_bytes" in said
    assert "heizer-load help" in _refused("run", code=2)


def _refused(*arguments, code=1):
    done = _run(*arguments)
    assert done.returncode == code, done.stderr
    said = done.stderr.splitlines()
    assert len(said) == 1 and said[0].startswith("heizer-load: "), f"not one clear line: {done.stderr!r}"
    return said[0]
