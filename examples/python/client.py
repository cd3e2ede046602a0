"""A client of a store that calls the owner of each key.

    thrift -r --gen py thrift/diststore.thrift          # in the clone: stubs in gen-py
    PYTHONPATH=gen-py:examples/python python
    >>> from client import Client
    >>> with Client("localhost:9900") as store:
    ...     store.put(b"b", b"banana")
    ...     store.get(b"b")

It asks any node for the members, at most once a second, and computes the owner of a key as the nodes
do. While the owner does not answer, it calls another node, which forwards the call. A write has one
id in all its attempts, so it takes effect once, however often it is sent.

A client is for one thread. A call blocks for `TIMEOUT` seconds and one attempt at most.
Needs Python 3.9 and the package `thrift` (0.17 or newer).
"""

from __future__ import annotations

import secrets
import ssl
import time
from itertools import count
from typing import Callable, TypeVar

from thrift.protocol.TBinaryProtocol import TBinaryProtocol
from thrift.protocol.TProtocol import TProtocolException
from thrift.Thrift import TApplicationException
from thrift.transport.TSocket import TSocket
from thrift.transport.TSSLSocket import TSSLSocket
from thrift.transport.TTransport import TBufferedTransport, TTransportException

from diststore import Store
from diststore.ttypes import NodeId, Refused, Write, WriteId
from ring import Ring

TIMEOUT = 15.0  # seconds until a call is given up; nodes remember the ids of writes for longer
CONNECT_TIMEOUT = 0.5
ATTEMPT_TIMEOUT = 5.0  # longer than it takes the nodes to find out that one of them hangs
PAUSE = 0.05  # before another attempt
FAILURE_PAUSE = 1.0  # for which a node that has failed is not called
TOPOLOGY_AGE = 1.0  # after which the members are asked for again
CLOCK_AGE = 30.0  # after which the clock of a node is asked for again
MAX_VALUE = 16 * 1024 * 1024

FAILURES = (TTransportException, TApplicationException, TProtocolException, OSError)
T = TypeVar("T")


class Unavailable(Exception):
    """No node had a result in time. A write may have taken effect."""


class Connection:
    """A connection to one process, with its clock, by which a write tells when it is too late."""

    def __init__(self, name: str, tls: ssl.SSLContext | None) -> None:
        host, _, port = name.rpartition(":")
        host = host.strip("[]")
        if tls:
            self._socket = TSSLSocket(host, int(port), ssl_context=tls)
        else:
            self._socket = TSocket(host, int(port))
        self._socket.setTimeout(CONNECT_TIMEOUT * 1000)
        self._socket.open()
        self._socket.setTimeout(ATTEMPT_TIMEOUT * 1000)
        self.store = Store.Client(TBinaryProtocol(TBufferedTransport(self._socket)))
        self._clock, self._clock_at = 0, float("-inf")

    def times(self, started: float, deadline: float) -> tuple[int, int]:
        """These times by the node's clock in milliseconds, or a little earlier."""
        if time.monotonic() - self._clock_at > CLOCK_AGE:
            self._clock = self.store.write_as_primary([], 0).clock
            self._clock_at = time.monotonic()
        start = self._clock - int((self._clock_at - started) * 1000) - 1
        return start, self._clock + int((deadline - self._clock_at) * 1000) - 1

    def close(self) -> None:
        self._socket.close()


class Client:
    """A client of the store of these nodes, each `HOST:PORT`. One that is up is enough."""

    def __init__(self, *peers: str, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._nodes = list(peers)
        self._members: dict[str, int] = {}  # the generation of each
        self._readers: dict[str, int] = {}
        self._ring = self._read_ring = Ring([])
        self._stale_at = 0.0
        self._failed_until: dict[str, float] = {}
        self._connections: dict[str, Connection] = {}
        self._origin = secrets.randbits(63)
        self._numbers = count(1)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections. The next call opens new ones."""
        while self._connections:
            self._connections.popitem()[1].close()

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, if there is one. Raises `Refused` or `Unavailable`."""
        return self._retry(key, True, lambda node, *_: node.store.fetch(key)).value

    def put(self, key: bytes, value: bytes) -> None:
        """Writes a value. Returns when all owners have it. Raises `Refused` or `Unavailable`."""
        if len(value) > MAX_VALUE:
            raise ValueError(f"a value of {len(value)} bytes; at most {MAX_VALUE} are accepted")
        self._write(key, value)

    def delete(self, key: bytes) -> bool:
        """Deletes a key. Returns whether it had a value. Raises `Refused` or `Unavailable`."""
        return self._write(key, None)

    def owner(self, key: bytes, reads: bool = False) -> str | None:
        """The node to call for a key. None while the nodes route every call."""
        self._refresh()
        if reads and self._readers:
            # During a rebalance a key is read where it was, unless that process is gone.
            reader = self._read_ring.owner(key)
            if self._members.get(reader) == self._readers[reader]:
                return reader
        return self._ring.owner(key)

    def _write(self, key: bytes, value: bytes | None) -> bool:
        write_id = WriteId(self._origin, next(self._numbers))

        def attempt(node: Connection, is_retry: bool, started: float) -> bool | None:
            start, deadline = node.times(started, started + TIMEOUT)
            write = Write(key, value, write_id, is_retry, deadline=deadline, started=start)
            result = node.store.write_many([write])[0]
            if result.refused is not None:
                raise Refused(result.refused)
            return result.existed if result.version > 0 else None

        return self._retry(key, False, attempt)

    def _retry(
        self, key: bytes, reads: bool, attempt: Callable[[Connection, bool, float], T | None]
    ) -> T:
        """Makes attempts, at the owner if it can be called, until one has a result."""
        started, failure = time.monotonic(), None
        for number in count():
            owner, nodes = self.owner(key, reads), self._callable()
            name = owner if owner in nodes else nodes[0]
            try:
                result = attempt(self._connection(name), number > 0, started)
                if result is not None:
                    return result
            except FAILURES as e:
                failure = e
                self._mark_failed(name)
            if time.monotonic() > started + TIMEOUT:
                break
            time.sleep(PAUSE)
        raise Unavailable(f"no result within {TIMEOUT} s, last from {name}") from failure

    def _refresh(self) -> None:
        """Asks for the members, if it is time. If no node answers, those that are known stay."""
        if time.monotonic() < self._stale_at:
            return
        for name in self._callable():
            try:
                topology = self._connection(name).store.topology()
            except FAILURES:
                self._mark_failed(name)
                continue
            self._members = by_name(topology.members)
            self._readers = by_name(topology.read_members)
            self._nodes = sorted(self._members) or self._nodes
            # Beside nodes of the original the callee must route every call.
            self._ring = Ring([] if topology.has_legacy else self._members)
            self._read_ring = Ring(self._readers)
            break
        self._stale_at = time.monotonic() + TOPOLOGY_AGE

    def _callable(self) -> list[str]:
        """The nodes that have not failed just now; all of them, if all have."""
        now = time.monotonic()
        nodes = [node for node in self._nodes if self._failed_until.get(node, now) <= now]
        return nodes or self._nodes

    def _connection(self, name: str) -> Connection:
        if name not in self._connections:
            self._connections[name] = Connection(name, self._tls)
        return self._connections[name]

    def _mark_failed(self, name: str) -> None:
        """Does not call a node for a while, and asks for the members before the next call."""
        self._failed_until[name] = time.monotonic() + FAILURE_PAUSE
        self._stale_at = 0.0
        if name in self._connections:
            self._connections.pop(name).close()


def by_name(nodes: list[NodeId]) -> dict[str, int]:
    """The generations of nodes by their names on the ring. A port's 16 bits are unsigned."""
    locations = ((node.location, node.generation) for node in nodes)
    return {f"{at.address}:{at.port & 0xFFFF}": generation for at, generation in locations}
