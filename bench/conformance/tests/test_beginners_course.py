"""The programs of a beginner's course, as a learner types them, each as a script of its own."""

import json
import subprocess
import sys

PRODUCER = """
import json
from kafka import KafkaProducer

producer = KafkaProducer(
    bootstrap_servers=['BOOTSTRAP'],
    value_serializer=lambda message: json.dumps(message).encode('utf-8'),
)
for number in range(100):
    producer.send('test', {'number': number})
producer.flush()
producer.close()
"""

CONSUMER = """
import json
from kafka import KafkaConsumer

consumer = KafkaConsumer(
    'test',
    bootstrap_servers=['BOOTSTRAP'],
    auto_offset_reset='earliest',
    enable_auto_commit=True,
    group_id='my-group-1',
    value_deserializer=lambda message: json.loads(message.decode('utf-8')),
    consumer_timeout_ms=5000,
)
for message in consumer:
    print(json.dumps([message.topic, message.partition, message.offset, message.value]), flush=True)
consumer.close()
"""

ASYNC_PRODUCER = """
import asyncio, json
from aiokafka import AIOKafkaProducer

async def main():
    producer = AIOKafkaProducer(
        bootstrap_servers='BOOTSTRAP', value_serializer=lambda message: json.dumps(message).encode('utf-8')
    )
    await producer.start()
    try:
        for number in range(100):
            await producer.send_and_wait('test', {'number': number})
    finally:
        await producer.stop()

asyncio.run(main())
"""


def run(program, bootstrap):
    line = [sys.executable, "-c", program.replace("BOOTSTRAP", bootstrap)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_json_values_are_read_once_by_the_group_and_the_next_run_goes_on(broker):
    run(PRODUCER, broker.bootstrap)
    expected = [["test", 0, n, {"number": n}] for n in range(100)]
    assert run(CONSUMER, broker.bootstrap) == expected
    assert run(CONSUMER, broker.bootstrap) == []
    run(ASYNC_PRODUCER, broker.bootstrap)
    assert run(CONSUMER, broker.bootstrap) == [["test", 0, 100 + n, {"number": n}] for n in range(100)]


def test_a_consumer_that_is_there_first_sees_what_comes(broker):
    line = [sys.executable, "-c", CONSUMER.replace("BOOTSTRAP", broker.bootstrap).replace("5000", "15000")]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL) as reader:
        try:
            run(PRODUCER, broker.bootstrap)
            seen = [json.loads(reader.stdout.readline())[3] for _ in range(100)]
        finally:
            reader.terminate()
    assert seen == [{"number": n} for n in range(100)]
