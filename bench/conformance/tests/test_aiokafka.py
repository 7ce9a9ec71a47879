"""aiokafka, the asyncio client."""

import asyncio

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic


def bounded(work, timeout_s=60):
    return asyncio.run(asyncio.wait_for(work, timeout_s))


async def take(reader, count):
    return [await asyncio.wait_for(reader.getone(), 20) for _ in range(count)]


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
def test_records_round_trip(bootstrap, fresh, codec):
    async def scenario():
        topic = fresh("aio")
        sent = [(b"k%d" % n, b"value " * 10 + b"%d" % n) for n in range(500)]
        async with AIOKafkaProducer(bootstrap_servers=bootstrap, compression_type=codec, linger_ms=20) as producer:
            await asyncio.gather(*[await producer.send(topic, value, key=key) for key, value in sent])
        async with AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest") as reader:
            assert [(m.key, m.value) for m in await take(reader, 500)] == sent

    bounded(scenario())


def test_an_idempotent_producer_keeps_order(bootstrap, fresh):
    async def scenario():
        topic = fresh("aio")
        async with AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True) as producer:
            for n in range(300):
                await producer.send(topic, b"%d" % n)
        async with AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest") as reader:
            assert [m.value for m in await take(reader, 300)] == [b"%d" % n for n in range(300)]

    bounded(scenario())


def test_two_members_share_and_one_takes_over(bootstrap, fresh):
    async def scenario():
        topic, group = fresh("aio"), fresh("g")
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await admin.start()
        await admin.create_topics([NewTopic(topic, num_partitions=4, replication_factor=1)])
        await admin.close()

        def member():
            return AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest")

        async def hold(*members, each):
            while [len(m.assignment()) for m in members] != [each] * len(members):
                await asyncio.sleep(0.1)

        first, second = member(), member()
        await first.start()
        await asyncio.wait_for(hold(first, each=4), 20)
        await second.start()
        await asyncio.wait_for(hold(first, second, each=2), 20)
        await first.stop()
        await asyncio.wait_for(hold(second, each=4), 20)
        await second.stop()

    bounded(scenario(), 90)


def test_a_commit_is_read_back(bootstrap, fresh):
    async def scenario():
        topic, group = fresh("aio"), fresh("g")
        async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
            await producer.send_and_wait(topic, b"x")
        options = {"bootstrap_servers": bootstrap, "group_id": group, "enable_auto_commit": False}
        async with AIOKafkaConsumer(topic, auto_offset_reset="earliest", **options) as reader:
            (message,) = await take(reader, 1)
            part = TopicPartition(topic, message.partition)
            await reader.commit({part: message.offset + 1})
            assert await reader.committed(part) == message.offset + 1

    bounded(scenario())
