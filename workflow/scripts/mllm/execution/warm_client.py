"""Be the program `python` of a run with warm starts: hand a script to the warm process, and end as it ends.

It stays in the process tree of the job's shell and forwards signals. If the warm process is missing, refuses or dies,
it replaces itself by the script, started cold. It runs by `python -IS` with few imports: it starts in 15 ms.
"""

import _signal as signal  # type: ignore[import-not-found]  # `signal` takes twice as long to import
import _socket as socket
import marshal
import os
import sys

FOLDER, ARGUMENTS = sys.argv[1], sys.argv[2:]
signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the child exists, Ctrl-C ends this process without a traceback
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def main() -> None:
    """Run ``sys.argv[2:]`` warm if possible, else cold; never return."""
    path = [p for p in os.environ.get("PATH", "").split(os.pathsep) if p != FOLDER]
    os.environ["PATH"] = os.pathsep.join(path)
    if "_" in os.environ:
        os.environ["_"] = sys.executable  # as the shell would have set it
    if not (ARGUMENTS and ARGUMENTS[0].endswith(".py")) or os.path.exists(f"{FOLDER}/off"):
        cold()
    connection = connect() or start()
    umask = os.umask(0)
    os.umask(umask)
    request = marshal.dumps((ARGUMENTS, os.getcwd(), umask, dict(os.environb)))
    descriptors = b"".join(fd.to_bytes(4, sys.byteorder) for fd in (0, 1, 2))
    try:
        header = len(request).to_bytes(8, "big")
        connection.sendmsg([header], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
        connection.sendall(request)
    except OSError as error:
        cold(f"the warm process took no job ({error.strerror})")
    wait(connection)


def wait(connection: socket.socket) -> None:
    """Follow the child until it ends; if the warm process dies first, its child dies too, and the job starts cold."""
    child = 0
    for line in lines(connection):
        match line.split(maxsplit=1):
            case ["child", pid]:
                child = int(pid)
                forward_signals(child)
            case ["cold", reason]:
                cold("" if reason == "quietly" else reason)
            case ["ended", status]:
                end(int(status))
    stop(child)
    if not owner_lives():
        sys.exit("the run was killed; its jobs end too")
    cold("the warm process died")


def lines(connection: socket.socket):  # type: ignore[no-untyped-def]
    """Yield the warm process's messages, line by line, until it closes the connection."""
    rest = b""
    while True:
        try:
            received = connection.recv(4096)
        except ConnectionError:
            return
        if not received:
            return
        *whole, rest = (rest + received).split(b"\n")
        yield from (line.decode() for line in whole)


def forward_signals(child: int) -> None:
    """Forward this process's signals to the child; a terminal's signals reach all processes of the job."""

    def to_group(number: int, _: object) -> None:
        _quietly(os.killpg, child, number)

    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, to_group)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda number, _: _quietly(os.kill, child, number))

    def pause(_: int, __: object) -> None:
        _quietly(os.killpg, child, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        _quietly(os.killpg, child, signal.SIGCONT)

    signal.signal(signal.SIGTSTP, pause)


def end(status: int) -> None:
    """End as the child ended: with its exit status, or by its signal."""
    if os.WIFEXITED(status):
        os._exit(os.WEXITSTATUS(status))
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    number = os.WTERMSIG(status)
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)


def stop(child: int) -> None:
    """Kill all that is left of the job before it starts again."""
    if child:
        _quietly(os.killpg, child, signal.SIGKILL)
        while os.path.exists(f"/proc/{child}") and _state(child) != "Z":
            pass


def cold(reason: str = "") -> None:
    """Replace this process by the script, as without a warm process; say why, once per run."""
    if reason:
        try:
            os.close(os.open(f"{FOLDER}/off", os.O_CREAT | os.O_EXCL, 0o600))
            os.write(2, f"warm starts: {reason}; jobs start cold from here on\n".encode())
        except OSError:
            pass
    os.execv(sys.executable, [sys.executable, *ARGUMENTS])


def connect() -> "socket.socket | None":
    """Connect to the warm process; return None if it does not listen. Start cold if another user owns it."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(f"{FOLDER}/socket")
    except OSError:
        connection.close()
        return None
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    if int.from_bytes(credentials[4:8], sys.byteorder) != os.getuid():
        cold("its socket belongs to another user")
    return connection


def start() -> socket.socket:
    """Start the warm process, unless another job just did; if it does not start, start this job cold."""
    import fcntl

    try:
        lock = os.open(f"{FOLDER}/lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:  # the run is over: no one reads a message
        cold()
    fcntl.flock(lock, fcntl.LOCK_EX)
    connection = connect()
    if connection is None and not os.path.exists(f"{FOLDER}/off"):
        ready, told = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                become_warm(told)
            os._exit(0)
        os.close(told)
        os.wait()
        os.read(ready, 1)
        connection = connect()
        if connection is None:
            cold(f"the warm process does not start ({last_line(f'{FOLDER}/log')})")
    os.close(lock)
    if connection is None:
        cold()
    return connection  # type: ignore[return-value]


def become_warm(told: int) -> None:
    """Replace this process by the warm process: without a terminal, with one compute thread, with the hub off."""
    log = os.open(f"{FOLDER}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDWR)
    for stream, source in enumerate((null, log, log)):
        os.dup2(source, stream)
    os.environ.update(dict.fromkeys(THREADS, "1"))
    os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")
    for allocator in ("JE_ARROW_MALLOC_CONF", "_RJEM_MALLOC_CONF"):  # pyarrow's and polars' would start threads
        os.environ[allocator] = "background_thread:false"
    os.set_inheritable(told, True)
    server = os.path.join(os.path.dirname(__file__), "warm_process.py")
    os.execv(sys.executable, [sys.executable, server, FOLDER, str(told)])


def owner_lives() -> bool:
    """Tell whether the process that offered warm starts still lives."""
    try:
        with open(f"{FOLDER}/owner") as file:
            pid, born = file.read().split()
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except (OSError, ValueError):
        return False
    return fields[19] == born and fields[0] != "Z"


def last_line(path: str) -> str:
    try:
        with open(path) as file:
            return (file.read().strip().splitlines() or ["no reason given"])[-1]
    except OSError as error:
        return str(error.strerror)


def _state(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def _quietly(function, *arguments):  # type: ignore[no-untyped-def]
    try:  # noqa: SIM105  (contextlib takes as long to import as all else here)
        function(*arguments)
    except ProcessLookupError:
        pass


main()
