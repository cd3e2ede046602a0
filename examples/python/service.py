"""A location service in Python: a node that joins a network by the methods of the original of 2009.

    thrift -r --gen py thrift/diststore.thrift          # in the clone: stubs in gen-py
    PYTHONPATH=gen-py python examples/python/service.py -h localhost:9900

Nodes of this project call it by those methods too, and keep its list of members up to date. It joins
a network of `location` nodes or starts one, and leaves at ctrl-C, SIGTERM or `die()`.

A service of your own has an interface that extends `locator.Locator`. Its handler inherits from
`Node`, sets `service_chain` and adds its methods, which find the owner of a key by `ring()`:

    class Visits(Node):
        service_chain = [*Node.service_chain, "visits.Visits"]
        ...
    serve(Visits, visits.Visits.Processor, options)

All its nodes have the same type. Needs Python 3.9 and the package `thrift` (0.17 or newer).
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
import threading
from contextlib import contextmanager
from typing import Iterable, Iterator

from thrift.protocol.TBinaryProtocol import TBinaryProtocol, TBinaryProtocolFactory
from thrift.protocol.TProtocol import TProtocolException
from thrift.server.TServer import TThreadedServer
from thrift.Thrift import TApplicationException
from thrift.transport.TSocket import TServerSocket, TSocket
from thrift.transport.TTransport import (
    TBufferedTransport,
    TBufferedTransportFactory,
    TTransportException,
)

from locator import Locator
from locator.ttypes import Location
from ring import Ring

PORTS = range(9900, 9940)  # one is chosen without --port
TIMEOUT = 1000  # milliseconds, for a call to another node

FAILURES = (TTransportException, TApplicationException, TProtocolException, OSError)


def name_of(location: Location) -> str:
    """The node's name on the ring. A port's 16 bits are unsigned, though Thrift has them signed."""
    return f"{location.address}:{location.port & 0xFFFF}"


def location_of(name: str) -> Location:
    address, _, port = name.rpartition(":")
    return Location(address, int(port) - (65536 if int(port) > 32767 else 0))


@contextmanager
def calling(name: str) -> Iterator[Locator.Client]:
    """A connection for some calls. It is closed at once: a node of the original serves one."""
    address, _, port = name.rpartition(":")
    transport = TSocket(address, int(port))
    transport.setTimeout(TIMEOUT)
    transport.open()
    try:
        yield Locator.Client(TBinaryProtocol(TBufferedTransport(transport)))
    finally:
        transport.close()


class Node:
    """The handler. Each connection has a thread, so its methods run at the same time.

    It has the original's methods. Any other one of the interface is answered "unknown method", as by
    a node of the original, and this project's nodes call it by the original's then."""

    service_chain = ["locator.Base", "locator.Locator"]

    def __init__(self, name: str) -> None:
        self.name = name
        self.leaving = threading.Event()
        self._members = {name}
        self._lock = threading.Lock()  # guards _members; never held during a call

    def known(self) -> set[str]:
        with self._lock:
            return set(self._members)

    def ring(self) -> Ring:
        """The ring of the members, for the owners of keys."""
        return Ring(self.known())

    def join_network(self, peer: str) -> None:
        """Takes the members from a peer, and tells it to add this node. Raises one of `FAILURES`."""
        with calling(peer) as node:
            found = node.service_type()
            if found != self.service_type():
                sys.exit(f"{peer} is a {found}, not a {self.service_type()}")
            for location in node.get_all():
                self._change(name_of(location), is_member=True)
            node.join(location_of(self.name))

    def leave_network(self) -> None:
        self._change(self.name, is_member=False)
        self._forward("remove", self.name, {self.name})

    def _change(self, name: str, is_member: bool) -> None:
        with self._lock:
            if is_member == (name in self._members):
                return
            (self._members.add if is_member else self._members.discard)(name)
        print("added" if is_member else "removed", name, file=sys.stderr, flush=True)

    def _forward(self, method: str, name: str, authorities: set[str]) -> None:
        """Forwards a change to the first member that does not know it. One that cannot be called
        is a member no more, for this node only."""
        for peer in sorted(self.known() - authorities):
            try:
                with calling(peer) as node:
                    known = [location_of(authority) for authority in sorted(authorities)]
                    getattr(node, method)(location_of(name), known)
                    return
            except FAILURES:
                self._change(peer, is_member=False)

    # The methods of locator.Base.

    def ping(self) -> None:
        pass

    def service_type(self) -> str:
        return self.service_chain[-1]

    def service_types(self) -> list[str]:
        return self.service_chain

    def debug(self) -> None:
        print("members:", *sorted(self.known()), file=sys.stderr, flush=True)

    def die(self) -> None:
        """As in the original, everyone who can connect can end the node."""
        self.leaving.set()

    # Those of locator.Locator. `authorities` are the nodes that know of the change already.

    def join(self, location: Location) -> None:
        self.add(location, [])

    def add(self, location: Location, authorities: Iterable[Location]) -> None:
        name = name_of(location)
        self._forward("add", name, {self.name, name, *map(name_of, authorities)})
        self._change(name, is_member=True)

    def remove(self, location: Location, authorities: Iterable[Location]) -> None:
        name = name_of(location)
        if name != self.name:
            self._change(name, is_member=False)
            self._forward("remove", name, {self.name, *map(name_of, authorities)})

    def get_all(self) -> list[Location]:
        return [location_of(name) for name in sorted(self.known())]

    def get_node(self, key: bytes) -> Location:
        owner = self.ring().owner(key)
        return location_of(owner) if owner else Location("", 0)


class Listener(TServerSocket):
    """A server's socket that listens before the server is started: others call a node that joins."""

    def __init__(self, address: str, ports: Iterable[int]) -> None:
        for port in ports:
            super().__init__(address, port)
            try:
                super().listen()
            except (TTransportException, OSError):
                continue
            self.port = self.handle.getsockname()[1]
            return
        sys.exit(f"no free port at {address}")

    def listen(self) -> None:
        pass


def own_address(peer: str | None) -> str:
    """The address of this host on the route to the peer."""
    if peer is None:
        return "127.0.0.1"
    host, _, port = peer.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, int(port)))
        return probe.getsockname()[0]


def serve(handler: type[Node], processor: type, options: argparse.Namespace) -> None:
    """Runs a node until it is told to leave."""
    address = options.advertise or own_address(options.host)
    listener = Listener(address, PORTS if options.port is None else [options.port])
    node = handler(f"{address}:{listener.port}")
    buffered, binary = TBufferedTransportFactory(), TBinaryProtocolFactory()
    processor = processor(node)
    for method in [name for name in processor._processMap if not hasattr(node, name)]:
        del processor._processMap[method]
    server = TThreadedServer(processor, listener, buffered, binary, daemon=True)
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: node.leaving.set())
    threading.Thread(target=server.serve, daemon=True).start()
    print(f"Starting the server at {node.name}...", file=sys.stderr, flush=True)
    if options.host is not None:
        try:
            node.join_network(options.host)
        except FAILURES as e:
            sys.exit(f"cannot join {options.host}: {e}")
    node.leaving.wait()
    node.leave_network()
    print("done.", file=sys.stderr)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Runs a location node.", add_help=False)
    parser.add_argument("-h", "--host", metavar="PEER", help="joins the network of HOST:PORT")
    parser.add_argument("-p", "--port", type=int, help="by default the first free one from 9900")
    parser.add_argument("--advertise", metavar="ADDRESS", help="by default that on the route to PEER")
    parser.add_argument("--help", action="help")
    return parser.parse_args()


if __name__ == "__main__":
    serve(Node, Locator.Processor, options())
