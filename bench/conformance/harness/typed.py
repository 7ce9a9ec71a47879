"""Requests of any API and version as plain dictionaries, encoded by kafka-python's own message schemas.

The clients under test decide for themselves what they ask; here a test decides, field by field, and sees every field of
the answer.
"""

from kafka.protocol import admin, consumer, metadata, producer

from . import wire

_MODULES = (admin, consumer, metadata, producer)


class Talk:
    """One connection that asks by name and answers with dictionaries."""

    def __init__(self, bootstrap: str, client: str = "typed", timeout_s: float = 20.0):
        self.connection = wire.Connection(bootstrap, timeout_s)
        self._client = client
        self._correlation = 0

    def __enter__(self) -> "Talk":
        return self

    def __exit__(self, *_) -> None:
        self.connection.socket.close()

    def send(self, api: str, version: int, **fields) -> int:
        """Sends without waiting; fields that are not named have their defaults. Returns the correlation id."""
        self._correlation += 1
        request = _filled(_message(api + "Request"), version, fields)
        request.with_header(correlation_id=self._correlation, client_id=self._client)
        self.connection.send(request.encode(version=version, header=True, framed=True))
        return self._correlation

    def receive(self, api: str, version: int, correlation: int) -> dict:
        """The answer to one that was sent."""
        reader = self.connection.answer(correlation)
        kind = _message(api + "Response")
        if kind.flexible_version_q(version) and api != "ApiVersions":
            assert reader.int8() == 0, "no tagged fields are known in a response header"
        body = reader.raw[reader.at :]
        return kind.decode(body, version=version).to_dict(json=False)

    def ask(self, api: str, version: int, **fields) -> dict:
        """One request, one answer."""
        return self.receive(api, version, self.send(api, version, **fields))


def _message(name: str):
    for module in _MODULES:
        if hasattr(module, name):
            return getattr(module, name)
    raise KeyError(name)


def _filled(kind, version: int, fields: dict):
    """An instance of a message's or a structure's class, its nested dictionaries turned into structures."""
    made = {}
    for name, value in fields.items():
        field = kind.fields[name]
        if field.is_struct_array() and value is not None:
            value = [_filled(field.data_class, version, item) for item in value]
        elif field.is_struct() and value is not None:
            value = _filled(field.data_class, version, value)
        made[name] = value
    return kind(version=version, **made)
