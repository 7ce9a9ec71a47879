"""The HTTP side: health, readiness, counters."""

import http.client
import re
import socket

import pytest

from harness import librdkafka as lib

pytestmark = pytest.mark.heizer


def get(server, path, method="GET"):
    link = http.client.HTTPConnection("127.0.0.1", server.admin_port, timeout=10)
    try:
        link.request(method, path)
        answer = link.getresponse()
        return answer.status, answer.read().decode()
    finally:
        link.close()


def test_health_and_readiness_answer_200(target):
    assert get(target.server, "/healthz")[0] == 200
    assert get(target.server, "/readyz")[0] == 200


def test_metrics_are_prometheus_text_and_count(target, bootstrap, fresh):
    status, before = get(target.server, "/metrics")
    assert status == 200
    samples = [line for line in before.splitlines() if line and not line.startswith("#")]
    assert samples and all(re.match(r"^[a-zA-Z_:][a-zA-Z0-9_:]*(\{.*\})? \S+", line) for line in samples)
    lib.produce_all(bootstrap, fresh("counted"), ({"value": b"x"} for _ in range(100)))
    assert get(target.server, "/metrics")[1] != before, "producing must move a counter"


def test_unknown_paths_and_methods_are_refused(target):
    assert get(target.server, "/nothing")[0] == 404
    assert get(target.server, "/healthz", "POST")[0] in (404, 405)


def test_garbage_does_not_hurt_the_http_side(target):
    for raw in (b"\x00" * 100, b"GET " + b"/" * 100_000, b"GET /healthz HTTP/1.1\r\n" + b"x: y\r\n" * 10_000, b"GET"):
        with socket.create_connection(("127.0.0.1", target.server.admin_port), timeout=5) as link:
            try:
                link.sendall(raw)
                link.shutdown(socket.SHUT_WR)
                link.recv(1000)
            except OSError:
                pass  # hung up on: that is an answer, too
    assert get(target.server, "/healthz")[0] == 200
