"""Administration from Python: confluent-kafka's AdminClient and kafka-python's KafkaAdminClient.

test_confluent_admin.py has what creates and lists; here is what changes and deletes.
"""

import base64
import time
from uuid import UUID

import kafka.errors as errors
import pytest
from confluent_kafka import (
    OFFSET_END,
    OFFSET_INVALID,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    ConsumerGroupType,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewPartitions,
    OffsetSpec,
    ResourceType,
)
from kafka.admin import (
    AlterConfigOp,
    ConfigResourceType,
    KafkaAdminClient,
    OffsetTimestamp,
)
from kafka.admin import ConfigResource as Resource
from kafka.admin import OffsetSpec as Spec
from kafka.structs import OffsetAndMetadata

from harness import librdkafka as lib
from harness import wait
from kafka import TopicPartition as Place

SET, DELETE = AlterConfigOpType.SET, AlterConfigOpType.DELETE
APPEND, SUBTRACT = AlterConfigOpType.APPEND, AlterConfigOpType.SUBTRACT
# The timestamp of the records at offset 0: an hour ago.
START_MS = int(time.time() * 1000) - 3_600_000


@pytest.fixture
def admin(bootstrap):
    return lib.admin(bootstrap)


@pytest.fixture
def node(admin):
    """The number of the broker."""
    (number,) = admin.list_topics(timeout=10).brokers
    return number


@pytest.fixture
def python(bootstrap):
    """kafka-python's client."""
    client = KafkaAdminClient(bootstrap_servers=bootstrap)
    yield client
    client.close()


def done(futures):
    """The one result of a call for one thing."""
    (future,) = futures.values()
    return future.result(lib.TIMEOUT_S)


def refusal(futures):
    """The code of the one error of a call for one thing."""
    with pytest.raises(KafkaException) as failure:
        done(futures)
    return failure.value.args[0].code()


def fill(bootstrap, topic, *counts):
    """So many records into each partition, each a millisecond after the one before."""
    for partition, count in enumerate(counts):
        records = [{"value": b"%d" % n, "partition": partition, "timestamp": START_MS + n} for n in range(count)]
        lib.produce_all(bootstrap, topic, records)


def own_settings(admin, topic):
    """What is set for the topic itself."""
    found = done(admin.describe_configs([lib.topic_resource(topic)]))
    its_own = [entry for entry in found.values() if ConfigSource(entry.source) == ConfigSource.DYNAMIC_TOPIC_CONFIG]
    assert not any(entry.is_default or entry.is_read_only for entry in its_own)
    return {entry.name: entry.value for entry in its_own}


def await_settings(admin, topic, expected):
    """What has been changed is described so: a broker of Kafka's learns it a little later."""
    wait.until(f"{topic} has {expected}", lambda: own_settings(admin, topic) == expected, 10)


def incremental(topic, *operations):
    """(operation, name, value) each."""
    entries = [ConfigEntry(name, value, incremental_operation=operation) for operation, name, value in operations]
    return ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)


def commit(bootstrap, group, topic, *offsets):
    """Commits without joining: an offset for each partition, from 0 on."""
    client = lib.consumer(bootstrap, group)
    places = [TopicPartition(topic, n, offset) for n, offset in enumerate(offsets)]

    def attempt():
        try:
            return client.commit(offsets=places, asynchronous=False)
        except KafkaException:  # the coordinator is not there yet
            return None

    wait.until("the offsets are committed", attempt)
    client.close()


@pytest.fixture
def active(bootstrap, fresh):
    """A topic of two partitions and a group with one member that reads it."""
    topic, group = lib.create_topic(bootstrap, fresh("active"), 2), fresh("g")
    member = lib.consumer(bootstrap, group)
    member.subscribe([topic])
    wait.until("the member has its partitions", lambda: member.poll(0.1) or lib.assignment_ids(member) == {0, 1})
    yield topic, group
    member.close()


# Partitions.


def test_partitions_are_added(bootstrap, admin, node, fresh):
    topic, missing = lib.create_topic(bootstrap, fresh("grows"), 2), fresh("missing")
    done(admin.create_partitions([NewPartitions(topic, 4)], validate_only=True))
    assert len(admin.list_topics(topic, timeout=10).topics[topic].partitions) == 2
    done(admin.create_partitions([NewPartitions(topic, 4)]))
    lib.await_topic(admin, topic, 4)
    done(admin.create_partitions([NewPartitions(topic, 5, [[node]])]))
    lib.await_topic(admin, topic, 5)
    for new, code in (
        (NewPartitions(topic, 5), KafkaError.INVALID_PARTITIONS),
        (NewPartitions(topic, 3), KafkaError.INVALID_PARTITIONS),
        (NewPartitions(topic, 6, [[node + 7]]), KafkaError.INVALID_REPLICA_ASSIGNMENT),
        (NewPartitions(missing, 3), KafkaError.UNKNOWN_TOPIC_OR_PART),
    ):
        assert refusal(admin.create_partitions([new])) == code, new
        assert refusal(admin.create_partitions([new], validate_only=True)) == code, new
    lib.await_topic(admin, topic, 5)
    lib.produce_all(bootstrap, topic, [{"value": b"x", "partition": n} for n in range(5)])
    assert lib.total_records(bootstrap, topic, 5) == 5


def test_kafka_python_adds_partitions_and_reads_them_page_by_page(python, node, fresh):
    one, two = fresh("a"), fresh("b")
    python.create_topics({one: {"num_partitions": 1}, two: {"num_partitions": 2}}, wait_for_metadata=True)
    python.create_partitions({one: 3}, validate_only=True)
    python.create_partitions({one: {"count": 3, "assignments": [[node], [node]]}, two: 4})
    python.wait_for_topics([one, two])
    counts = {topic["name"]: len(topic["partitions"]) for topic in python.describe_topics([one, two])}
    assert counts == {one: 3, two: 4}
    for wanted, error in (
        ({one: 3}, errors.InvalidPartitionsError),
        ({one: {"count": 5, "assignments": [[node]]}}, errors.InvalidReplicationAssignmentError),
        ({fresh("missing"): 3}, errors.UnknownTopicOrPartitionError),
    ):
        with pytest.raises(error):
            python.create_partitions(wanted)

    seen, cursor, pages = [], None, 0
    while pages == 0 or cursor:
        page = python.describe_topic_partitions([one, two], response_partition_limit=2, cursor=cursor)
        for topic in page["topics"]:
            assert topic["error_code"] == 0 and not topic["is_internal"]
            for part in topic["partitions"]:
                assert (part["error_code"], part["leader_id"]) == (0, node)
                assert part["replica_nodes"] == part["isr_nodes"] == [node]
                seen.append((topic["name"], part["partition_index"]))
        cursor, pages = page["next_cursor"], pages + 1
    assert seen == [(one, n) for n in range(3)] + [(two, n) for n in range(4)]
    assert pages == 4, "seven partitions, two at a time"
    (unknown,) = python.describe_topic_partitions([fresh("missing")])["topics"]
    assert (unknown["error_code"], unknown["partitions"]) == (KafkaError.UNKNOWN_TOPIC_OR_PART, [])


# Settings.


def test_settings_are_altered_incrementally(bootstrap, admin, fresh):  # contract P9
    topic = lib.create_topic(bootstrap, fresh("tuned"), retention_ms=60_000)

    def alter(*operations, **options):
        return admin.incremental_alter_configs([incremental(topic, *operations)], **options)

    done(alter((SET, "max.message.bytes", "5000"), (APPEND, "cleanup.policy", "compact")))
    settings = {"retention.ms": "60000", "max.message.bytes": "5000", "cleanup.policy": "delete,compact"}
    await_settings(admin, topic, settings)
    done(alter((APPEND, "cleanup.policy", "compact")))
    assert own_settings(admin, topic) == settings, "what is in a list is not added again"
    done(alter((SET, "retention.ms", "1"), (DELETE, "max.message.bytes", None), validate_only=True))
    assert own_settings(admin, topic) == settings, "nothing is done when it is only validated"
    done(alter((SUBTRACT, "cleanup.policy", "delete"), (DELETE, "retention.ms", None)))
    await_settings(admin, topic, {"max.message.bytes": "5000", "cleanup.policy": "compact"})

    for operations in (
        [(SET, "retention.ms", "1"), (SET, "no.such.setting", "1")],
        [(SET, "retention.ms", "1"), (SET, "segment.ms", "soon")],
        [(SET, "cleanup.policy", "burn")],
        [(APPEND, "retention.ms", "1")],
        [(SUBTRACT, "max.message.bytes", "5000")],
    ):
        assert refusal(alter(*operations)) == KafkaError.INVALID_CONFIG, operations
        assert refusal(alter(*operations, validate_only=True)) == KafkaError.INVALID_CONFIG, operations
    missing = incremental(fresh("missing"), (SET, "retention.ms", "1"))
    assert refusal(admin.incremental_alter_configs([missing])) == KafkaError.UNKNOWN_TOPIC_OR_PART
    assert own_settings(admin, topic) == {"max.message.bytes": "5000", "cleanup.policy": "compact"}


def test_one_resources_error_leaves_the_others_alone(bootstrap, admin, fresh):
    good, bad = lib.create_topic(bootstrap, fresh("good")), lib.create_topic(bootstrap, fresh("bad"))
    resources = [incremental(good, (SET, "retention.ms", "7")), incremental(bad, (SET, "retention.ms", "soon"))]
    futures = {resource.name: future for resource, future in admin.incremental_alter_configs(resources).items()}
    futures[good].result(lib.TIMEOUT_S)
    with pytest.raises(KafkaException) as failure:
        futures[bad].result(lib.TIMEOUT_S)
    assert failure.value.args[0].code() == KafkaError.INVALID_CONFIG
    await_settings(admin, good, {"retention.ms": "7"})
    assert own_settings(admin, bad) == {}


def test_the_older_call_resets_what_it_does_not_name(bootstrap, admin, fresh):  # contract P9
    topic = lib.create_topic(bootstrap, fresh("reset"), retention_ms=60_000, max_message_bytes=5000)

    def alter(settings, **options):
        with pytest.warns(DeprecationWarning):
            return admin.alter_configs([ConfigResource(ResourceType.TOPIC, topic, set_config=settings)], **options)

    done(alter({"segment.ms": "70000"}, validate_only=True))
    assert own_settings(admin, topic) == {"retention.ms": "60000", "max.message.bytes": "5000"}
    done(alter({"segment.ms": "70000", "retention.ms": "80000"}))
    await_settings(admin, topic, {"segment.ms": "70000", "retention.ms": "80000"})
    assert refusal(alter({"segment.ms": "70000", "no.such.setting": "1"})) == KafkaError.INVALID_CONFIG
    assert own_settings(admin, topic) == {"segment.ms": "70000", "retention.ms": "80000"}
    done(alter({}))
    await_settings(admin, topic, {})


def test_a_brokers_settings_are_altered(broker):
    admin = lib.admin(broker.bootstrap)
    node = lib.broker_resource("1")

    def alter(name, value, operation=SET):
        entry = ConfigEntry(name, value, incremental_operation=operation)
        return admin.incremental_alter_configs([ConfigResource(ResourceType.BROKER, "1", incremental_configs=[entry])])

    def described(name):
        entry = done(admin.describe_configs([node]))[name]
        return entry.value, ConfigSource(entry.source), bool(entry.is_read_only)

    assert described("log.retention.ms")[1:] == (ConfigSource.DEFAULT_CONFIG, False)
    done(alter("log.retention.ms", "7200000"))
    expected = ("7200000", ConfigSource.DYNAMIC_BROKER_CONFIG, False)
    wait.until("the broker has the setting", lambda: described("log.retention.ms") == expected)
    assert described("num.partitions") == ("1", ConfigSource.DEFAULT_CONFIG, True)
    assert refusal(alter("num.partitions", "3")) == KafkaError.INVALID_REQUEST
    assert refusal(alter("log.retention.ms", "soon")) == KafkaError.INVALID_REQUEST
    done(alter("log.retention.ms", None, DELETE))
    wait.until("the default holds again", lambda: described("log.retention.ms")[1] == ConfigSource.DEFAULT_CONFIG)


def test_kafka_python_alters_resets_and_lists(python, node, fresh):
    topic = fresh("tuned")
    made = python.create_topics({topic: {"num_partitions": 1, "configs": {"retention.ms": "60000"}}})
    assert made["topics"][0]["configs"]["retention.ms"]["config_source"] == "DYNAMIC_TOPIC_CONFIG"
    python.wait_for_topics([topic])

    def own():
        found = python.describe_configs([Resource(ConfigResourceType.TOPIC, topic)])["topic"][topic]
        return {name: entry["value"] for name, entry in found.items()}

    def await_own(expected):
        wait.until(f"{topic} has {expected}", lambda: own() == expected, 10)

    def alter(configs, **options):
        return python.alter_configs([Resource("topic", topic, configs)], **options)["topic"][topic]

    said = alter({"retention.ms": "1", "cleanup.policy": (AlterConfigOp.APPEND, "compact")}, validate_only=True)
    assert (said, own()) == ("OK", {"retention.ms": "60000"})
    assert alter({"max.message.bytes": "5000", "cleanup.policy": (AlterConfigOp.APPEND, "compact")}) == "OK"
    await_own({"retention.ms": "60000", "max.message.bytes": "5000", "cleanup.policy": "delete,compact"})
    assert alter({"cleanup.policy": ("SUBTRACT", "delete"), "max.message.bytes": ("DELETE", None)}) == "OK"
    await_own({"retention.ms": "60000", "cleanup.policy": "compact"})
    # By the older request, to which this client adds what is set already.
    assert alter({"segment.ms": "70000"}, incremental=False) == "OK"
    await_own({"retention.ms": "60000", "cleanup.policy": "compact", "segment.ms": "70000"})
    assert alter({"no.such.setting": "1"}, raise_on_unknown=False).startswith("[Error 40]")
    assert alter({"retention.ms": "soon"}).startswith("[Error 40]")
    python.reset_configs([Resource("topic", topic, ["segment.ms"])])
    await_own({"retention.ms": "60000", "cleanup.policy": "compact"})
    python.reset_configs([Resource("topic", topic, ["retention.ms", "cleanup.policy"])])
    await_own({})

    listed = python.list_config_resources()
    assert topic in listed["topic"] and listed["broker"] == [str(node)]
    assert python.list_config_resources(["broker"]) == {"broker": [str(node)]}
    assert topic in python.list_config_resources([ConfigResourceType.TOPIC])["topic"]


# Records.


def test_records_are_deleted(bootstrap, admin, fresh):
    topic = lib.create_topic(bootstrap, fresh("shrinks"), 2)
    fill(bootstrap, topic, 10, 4)
    futures = admin.delete_records([TopicPartition(topic, 0, 4), TopicPartition(topic, 1, OFFSET_END)])
    low = {place.partition: future.result(lib.TIMEOUT_S).low_watermark for place, future in futures.items()}
    assert low == {0: 4, 1: 4}
    read = lib.read_topic(bootstrap, topic, 2)
    assert [m.value() for m in read[0]] == [b"%d" % n for n in range(4, 10)] and not read[1]
    assert done(admin.delete_records([TopicPartition(topic, 0, 2)])).low_watermark == 4
    assert refusal(admin.delete_records([TopicPartition(topic, 0, 11)])) == KafkaError.OFFSET_OUT_OF_RANGE
    (earliest,) = admin.list_offsets({TopicPartition(topic, 0): OffsetSpec.earliest()}).values()
    assert earliest.result(lib.TIMEOUT_S).offset == 4
    compacted = lib.create_topic(bootstrap, fresh("compacted"), cleanup_policy="compact")
    lib.produce_all(bootstrap, compacted, [{"key": b"k", "value": b"v"}])
    assert refusal(admin.delete_records([TopicPartition(compacted, 0, 1)])) == KafkaError.POLICY_VIOLATION


def test_kafka_python_deletes_records(bootstrap, python, node, fresh):
    topic = lib.create_topic(bootstrap, fresh("shrinks"), 2)
    fill(bootstrap, topic, 10, 4)
    found = python.delete_records({Place(topic, 0): 7, Place(topic, 1): -1})
    assert {place.partition: answer["low_watermark"] for place, answer in found.items()} == {0: 7, 1: 4}
    with pytest.raises(errors.OffsetOutOfRangeError):
        python.delete_records({Place(topic, 0): 11})
    with pytest.raises(errors.UnknownTopicOrPartitionError):
        python.delete_records({Place(topic, 2): 0}, partition_leader_id=node)
    found = python.list_partition_offsets({Place(topic, 0): Spec.EARLIEST, Place(topic, 1): Spec.EARLIEST})
    assert {place.partition: answer.offset for place, answer in found.items()} == {0: 7, 1: 4}


def test_offsets_are_listed_by_both_clients(bootstrap, admin, python, fresh):
    topic = lib.create_topic(bootstrap, fresh("listed"))
    fill(bootstrap, topic, 10)
    for confluent, ours, expected in (
        (OffsetSpec.earliest(), Spec.EARLIEST, 0),
        (OffsetSpec.latest(), Spec.LATEST, 10),
        (OffsetSpec.max_timestamp(), Spec.MAX_TIMESTAMP, 9),
        (OffsetSpec.for_timestamp(START_MS + 3), START_MS + 3, 3),
        (OffsetSpec.for_timestamp(START_MS + 99), START_MS + 99, -1),
    ):
        found = done(admin.list_offsets({TopicPartition(topic, 0): confluent}))
        (answer,) = python.list_partition_offsets({Place(topic, 0): ours}).values()
        assert (found.offset, answer.offset) == (expected, expected), ours
        assert found.timestamp == answer.timestamp


# Groups.


def test_groups_are_deleted_when_nobody_is_in_them(bootstrap, admin, active, fresh):
    topic, busy = active
    idle, missing = fresh("idle"), fresh("missing")
    commit(bootstrap, idle, topic, 1, 2)

    def listed(**options):
        return {group.group_id for group in admin.list_consumer_groups(**options).result(lib.TIMEOUT_S).valid}

    assert {idle, busy} <= listed(types={ConsumerGroupType.CLASSIC})
    empty = listed(states={ConsumerGroupState.EMPTY})
    assert idle in empty and busy not in empty
    assert refusal(admin.delete_consumer_groups([busy])) == KafkaError.NON_EMPTY_GROUP
    assert refusal(admin.delete_consumer_groups([missing])) == KafkaError.GROUP_ID_NOT_FOUND
    done(admin.delete_consumer_groups([idle]))
    assert idle not in listed() and busy in listed()
    assert refusal(admin.delete_consumer_groups([idle])) == KafkaError.GROUP_ID_NOT_FOUND
    offsets = done(admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(idle)]))
    assert offsets.topic_partitions == []


def test_a_groups_offsets_are_listed_and_altered(bootstrap, admin, active, fresh):
    topic, busy = active
    group = fresh("g")
    commit(bootstrap, group, topic, 5)

    def offsets(of, *places):
        asked = ConsumerGroupTopicPartitions(of, list(places) or None)
        found = done(admin.list_consumer_group_offsets([asked])).topic_partitions
        return {(place.partition, place.offset, place.metadata or "") for place in found}

    def alter(of, *places):
        return done(admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(of, list(places))]))

    assert offsets(group) == {(0, 5, "")}
    assert offsets(group, TopicPartition(topic, 1)) == {(1, OFFSET_INVALID, "")}
    altered = alter(group, TopicPartition(topic, 0, 2), TopicPartition(topic, 1, 9, "a note"))
    assert [place.error for place in altered.topic_partitions] == [None, None]
    assert offsets(group) == {(0, 2, ""), (1, 9, "a note")}
    # While somebody is in a group, only its members commit.
    with pytest.raises(KafkaException) as failure:
        altered = alter(busy, TopicPartition(topic, 0, 2))
        raise KafkaException(altered.topic_partitions[0].error)
    assert failure.value.args[0].code() == KafkaError.UNKNOWN_MEMBER_ID
    assert offsets(busy) == set()


def test_kafka_python_manages_groups(bootstrap, python, active, fresh):
    topic, busy = active
    group, missing = fresh("g"), fresh("missing")
    fill(bootstrap, topic, 10, 4)
    commit(bootstrap, group, topic, 5, 2)
    first, second = Place(topic, 0), Place(topic, 1)

    def offsets():
        return {place: found.offset for place, found in python.list_group_offsets(group)[group].items()}

    listed = {found["group_id"]: found["group_state"] for found in python.list_groups()}
    assert (listed[group], listed[busy]) == ("Empty", "Stable")
    stable = {found["group_id"] for found in python.list_groups(states_filter=["Stable"], types_filter=["classic"])}
    assert busy in stable and group not in stable
    described = python.describe_groups([group, busy])
    assert (described[group]["group_state"], described[busy]["group_state"]) == ("Empty", "Stable")
    assert len(described[busy]["members"]) == 1 and not described[group]["members"]

    assert offsets() == {first: 5, second: 2}
    altered = python.alter_group_offsets(group, {first: OffsetAndMetadata(7, "a note", -1)})
    assert altered == {first: errors.NoError}
    assert python.list_group_offsets({group: [first]})[group][first].metadata == "a note"
    reset = python.reset_group_offsets(group, {first: OffsetTimestamp(START_MS + 3), second: 99})
    assert {place: answer["offset"] for place, answer in reset.items()} == {first: 3, second: 4}
    assert offsets() == {first: 3, second: 4}
    assert python.delete_group_offsets(group, [first]) == {first: errors.NoError}
    assert offsets() == {second: 4}
    assert python.delete_group_offsets(busy, [first]) == {first: errors.GroupSubscribedToTopicError}
    with pytest.raises(errors.GroupIdNotFoundError):
        python.delete_group_offsets(missing, [first])
    assert python.delete_groups([group, busy, missing]) == {
        group: "OK",
        busy: "NonEmptyGroupError",
        missing: "GroupIdNotFoundError",
    }
    assert group not in {found["group_id"] for found in python.list_groups()}


# The cluster and its topics.


def test_cluster_and_topics_are_described_alike(bootstrap, admin, python, fresh):
    topic, missing = lib.create_topic(bootstrap, fresh("told"), 3), fresh("missing")
    cluster, ours = admin.describe_cluster().result(lib.TIMEOUT_S), python.describe_cluster()
    assert [f"{node.host}:{node.port}" for node in cluster.nodes] == [bootstrap]
    assert [f"{node['host']}:{node['port']}" for node in ours["brokers"]] == [bootstrap]
    assert cluster.cluster_id == ours["cluster_id"] != ""
    assert cluster.controller.id == ours["controller_id"] == cluster.nodes[0].id

    described = admin.describe_topics(TopicCollection([topic, missing]))
    found = described[topic].result(lib.TIMEOUT_S)
    assert (found.name, found.is_internal) == (topic, False)
    assert [(part.id, part.leader.id, [node.id for node in part.isr]) for part in found.partitions] == [
        (n, cluster.controller.id, [cluster.controller.id]) for n in range(3)
    ]
    with pytest.raises(KafkaException) as failure:
        described[missing].result(lib.TIMEOUT_S)
    assert failure.value.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART
    (by_name,) = python.describe_topics([topic])
    its_id = UUID(by_name["topic_id"])
    (by_id,) = python.describe_topics([its_id])
    assert by_id == by_name
    assert base64.b64encode(its_id.bytes).decode().rstrip("=") == str(found.topic_id)


def test_kafka_python_creates_validates_and_deletes_topics(python, node, fresh):
    one, two, missing = fresh("one"), fresh("two"), fresh("missing")
    python.create_topics({one: {"num_partitions": 2}}, validate_only=True)
    assert one not in python.list_topics()
    python.create_topics({one: {"assignments": {0: [node], 1: [node]}}, two: {}}, wait_for_metadata=True)
    assert [len(topic["partitions"]) for topic in python.describe_topics([one, two])] == [2, 1]
    for wrong, error in (
        ({one: {}}, errors.TopicAlreadyExistsError),
        ({fresh("refused"): {"configs": {"retention.ms": "soon"}}}, errors.InvalidConfigurationError),
        ({fresh("refused"): {"num_partitions": 1, "replication_factor": 3}}, errors.InvalidReplicationFactorError),
        ({"bad name!": {}}, errors.InvalidTopicError),
    ):
        with pytest.raises(error):
            python.create_topics(wrong)
    answers = python.create_topics({one: {}, fresh("new"): {}}, raise_errors=False)["topics"]
    assert sorted(answer["error_code"] for answer in answers) == [0, KafkaError.TOPIC_ALREADY_EXISTS]
    its_id = UUID(python.describe_topics([two])[0]["topic_id"])
    python.delete_topics([one, its_id])
    wait.until("the topics are gone", lambda: not {one, two} & set(python.list_topics()))
    with pytest.raises(errors.UnknownTopicOrPartitionError):
        python.delete_topics([missing])
