"""The leader's port: every connection gets a thread of its own, and a stranger's does no harm."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

from job.errors import HardwareError
from job.host.gang import Gang
from job.host.gang_line import Line, Pace

MOST_CONNECTIONS = 1024  # strangers included
TAKEN_SECONDS = 10.0  # a predecessor's port becomes free
ACCEPT_SECONDS = 0.2


@contextlib.contextmanager
def listening(gang: Gang, port: int, pace: Pace) -> Iterator[int]:
    """Yields the port. Raises: HardwareError when it is taken."""
    server = _server(port)
    over = threading.Event()
    thread = threading.Thread(target=_accept, args=(server, gang, pace, over), daemon=True, name="gang")
    thread.start()
    try:
        yield int(server.getsockname()[1])
    finally:
        over.set()
        thread.join()
        server.close()


def _server(port: int) -> socket.socket:
    """On all addresses: a leader may know itself by a name that no other node uses."""
    until = time.monotonic() + TAKEN_SECONDS
    while True:
        try:
            if socket.has_dualstack_ipv6():
                with contextlib.suppress(OSError):
                    return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
            return socket.create_server(("", port))
        except OSError as error:
            if time.monotonic() > until:
                raise HardwareError(
                    f"this node leads, and cannot listen at its port {port}: {error.strerror}; give the job another "
                    "port, with SFT_JOB_LEADER=HOST:PORT on every node"
                ) from error
            time.sleep(ACCEPT_SECONDS)


def _accept(server: socket.socket, gang: Gang, pace: Pace, over: threading.Event) -> None:
    server.settimeout(ACCEPT_SECONDS)
    places = threading.Semaphore(MOST_CONNECTIONS)
    while not over.is_set():
        try:
            connection, address = server.accept()
        except TimeoutError:
            continue
        except OSError:
            over.wait(ACCEPT_SECONDS)  # too many open files, for instance
            continue
        if not places.acquire(blocking=False):
            connection.close()
            continue
        peer = f"{address[0].removeprefix('::ffff:')}:{address[1]}"
        threading.Thread(target=_serve, args=(connection, peer, gang, pace, places), daemon=True, name=peer).start()


def _serve(connection: socket.socket, peer: str, gang: Gang, pace: Pace, places: threading.Semaphore) -> None:
    try:
        with contextlib.closing(connection), contextlib.suppress(OSError):
            gang.serve(Line(connection, pace), peer)
    finally:
        places.release()
