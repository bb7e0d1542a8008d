"""Be the warm process: import the libraries that jobs need, and fork a child for each job that a client requests.

It imports third-party libraries only (``warm_modules``): the child imports the project's own modules, so that an edit
during a run counts. It has one thread, uses no GPU, and ends with its owner.
``warm_client`` starts it with the run's private folder and a descriptor on which it says that it listens.
"""

import array
import contextlib
import ctypes
import marshal
import os
import select
import shutil
import signal
import socket
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

import warm_child  # type: ignore[import-not-found]
from warm_child import Job
from warm_modules import Modules  # type: ignore[import-not-found]

SCRIPTS = Path(__file__).resolve().parents[2]
NETWORK = ("download_",)  # scripts that use the hub; libraries read whether it is on only once, at import


@dataclass
class Child:
    """A running job: the connection to its client, and what is needed to report its end."""

    pid: int
    connection: socket.socket
    learned: int
    used: Path
    """File that says what it used, empty while it works: its name has the client's process number and the client's parent's."""
    script: str


class WarmProcess:
    """Listen, import, fork, and tell clients how their children ended."""

    def __init__(self, folder: Path):
        self.folder = folder
        pid, born = map(int, (folder / "owner").read_text().split())
        self.owner = os.pidfd_open(pid)
        if int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]) != born:
            raise ProcessLookupError("the run has ended")
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(folder / "socket"))
        self.listener.listen(128)
        self.poll = select.poll()
        self.poll.register(self.owner, select.POLLIN)
        self.poll.register(self.listener, select.POLLIN)
        self.children: dict[int, Child] = {}  # by pidfd
        self.clients: dict[int, int] = {}  # descriptor of a client's connection -> pidfd
        self.modules = Modules()

    def serve(self) -> Job:
        """Serve until the owner ends; return only in a child, with its job."""
        while True:
            for descriptor, _ in self.poll.poll(1000):
                if descriptor == self.owner:
                    self.end()
                elif descriptor == self.listener.fileno():
                    if job := self.accept():
                        return job
                elif descriptor in self.children:
                    self.tell(descriptor)
                elif descriptor in self.clients:  # a client died: kill its job too
                    _kill(self.children[self.clients[descriptor]].pid)
                    self.forget(descriptor)
            if not (self.folder / "owner").exists():
                self.end()

    def accept(self) -> Job | None:
        """Take one client's job and fork; return the job in the child, None in the warm process."""
        connection, _ = self.listener.accept()
        client, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if user != os.getuid():
            connection.close()
            return None
        connection.settimeout(5)
        try:
            job = receive(connection)
        except (OSError, EOFError, ValueError):
            connection.close()
            return None
        refusal = refuse(job)
        if not refusal:
            self.modules.load(job.script.stem)
            refusal = beside_libraries()
        if not refusal:
            try:
                return self.fork(job, connection, client)
            except OSError as error:
                refusal = f"the warm process cannot fork ({error.strerror})"
        connection.sendall(f"cold {refusal}\n".encode())
        connection.close()
        for descriptor in (*job.streams, job.learned):
            os.close(descriptor)
        return None

    def fork(self, job: Job, connection: socket.socket, client: int) -> Job | None:
        """Fork one child for one job; the child closes all that belongs to the warm process."""
        warm = os.getpid()
        pid = os.fork()
        if pid == 0:
            die_with_parent(warm)
            os.setsid()
            connection.close()
            self.listener.close()
            for descriptor in (self.owner, *self.children, *(c.learned for c in self.children.values())):
                os.close(descriptor)
            for child in self.children.values():
                child.connection.close()
            return job
        for descriptor in job.streams:
            os.close(descriptor)
        handle = os.pidfd_open(pid)
        used = self.folder / f"{_parent(client)}.{client}.usage"
        with contextlib.suppress(OSError):
            used.touch()
        self.children[handle] = Child(pid, connection, job.learned, used, job.script.stem)
        self.clients[connection.fileno()] = handle
        self.poll.register(handle, select.POLLIN)
        self.poll.register(connection, 0)  # report only its end
        self.say(connection, f"child {pid}")
        return None

    def tell(self, handle: int) -> None:
        """Tell a client how its child ended, and write the child's CPU time and memory for benchmarks."""
        child = self.children.pop(handle)
        _, status, used = os.wait4(child.pid, 0)
        self.poll.unregister(handle)
        os.close(handle)
        _kill(child.pid) if os.WIFSIGNALED(status) else None
        child.used.write_text(f"{used.ru_utime + used.ru_stime:.2f} {used.ru_maxrss / 1024:.2f}")
        self.say(child.connection, f"ended {status}")
        if child.connection.fileno() in self.clients:
            self.forget(child.connection.fileno())
        child.connection.close()
        with os.fdopen(child.learned, "rb") as file:
            file.seek(0)
            self.modules.learn(child.script, file.read().decode().split())

    def forget(self, descriptor: int) -> None:
        self.poll.unregister(descriptor)
        del self.clients[descriptor]

    def say(self, connection: socket.socket, words: str) -> None:
        with contextlib.suppress(OSError):  # a dead client is seen by poll
            connection.sendall(f"{words}\n".encode())

    def end(self) -> None:
        """End after the owner: kill all jobs of its run, and delete its folder."""
        for child in self.children.values():
            _kill(child.pid)
        shutil.rmtree(self.folder, ignore_errors=True)
        os._exit(0)


def receive(connection: socket.socket) -> Job:
    """Read a client's request: length, three descriptors, and the job as `marshal` writes it."""
    streams = array.array("i")
    header, ancillary, _, _ = connection.recvmsg(8, socket.CMSG_SPACE(3 * streams.itemsize))
    for _, _, data in ancillary:
        streams.frombytes(data)
    length, parts = int.from_bytes(header, "big"), bytearray()
    while len(parts) < length and (more := connection.recv(length - len(parts))):
        parts += more
    arguments, directory, umask, environment = marshal.loads(parts)
    return Job(arguments, directory, umask, environment, list(streams), os.memfd_create("learned"))


def refuse(job: Job) -> str:
    """Say why a job must start cold; empty if it may start warm."""
    return "quietly" if job.script.parent != SCRIPTS or job.script.name.startswith(NETWORK) else ""


def beside_libraries() -> str:
    """Say why the imported libraries prevent a fork; empty if they do not."""
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads > 1:
        return f"a library started {threads - 1} threads when it was imported"
    links = [str(f.readlink()) for f in Path("/proc/self/fd").iterdir() if f.is_symlink()]
    if any(link.startswith("/dev/nvidia") for link in links):
        return "a library used the GPU when it was imported"
    return ""


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent dies; end at once if the parent is dead already."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def _kill(group: int) -> None:
    """Kill a job and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def main() -> None:
    """Serve; in each child, run its job."""
    sys.path.pop(0)  # this file's folder
    warm = WarmProcess(Path(sys.argv[1]))
    ready = int(sys.argv[2])
    os.write(ready, b"1")
    os.close(ready)
    job = warm.serve()
    del warm
    os._exit(warm_child.run(job))


if __name__ == "__main__":
    main()
