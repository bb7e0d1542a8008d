"""Run a job in a child of the warm process, like `python script.py …` but with the libraries imported already."""

import atexit
import ctypes
import os
import signal
import sys
import tempfile
import threading
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType

import warm_modules  # type: ignore[import-not-found]


@dataclass
class Job:
    """A client's request, with its standard streams."""

    arguments: list[str]
    directory: str
    umask: int
    environment: dict[bytes, bytes]
    streams: list[int]
    learned: int  # descriptor to which the child writes the names of the modules that it imported

    @property
    def script(self) -> Path:
        return Path(self.directory, self.arguments[0]).resolve()


def run(job: Job) -> int:
    """Run a job's script in this process as `python script.py …` would; return its exit status."""
    for stream, descriptor in enumerate(job.streams):
        os.dup2(descriptor, stream)
        os.close(descriptor)
    os.chdir(job.directory)
    os.umask(job.umask)
    os.environb.clear()
    os.environb.update(job.environment)
    time.tzset()
    tempfile.tempdir = None
    sys.stdout.reconfigure(line_buffering=os.isatty(1) and not sys.stdout.write_through)  # type: ignore[union-attr]
    ctypes.CDLL(None).prctl(15, job.script.stem.encode()[:15])  # PR_SET_NAME
    use_threads(int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))))
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
    end_no_library()
    warm_modules.start_threads()
    before = set(sys.modules)
    status = execute(job)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(job.learned, "\n".join(third_party(before)).encode())
    return status


def execute(job: Job) -> int:
    """Run the script as ``__main__``; handle its exceptions as Python itself does."""
    name = str(Path(job.directory, job.arguments[0]))
    module = ModuleType("__main__")
    module.__dict__.update(__file__=name, __builtins__=__builtins__)
    sys.modules["__main__"] = module
    sys.argv = list(job.arguments)
    sys.path.insert(0, str(job.script.parent))
    try:
        code: CodeType = compile(Path(name).read_bytes(), name, "exec", dont_inherit=True)
        exec(code, module.__dict__)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return (end.code or 0) & 0xFF
        print(end.code, file=sys.stderr)
        return 1
    except BaseException as error:
        own = error.__traceback__  # begins here; the script's part begins one frame later
        error.__traceback__ = own.tb_next if own else None
        sys.excepthook(type(error), error, error.__traceback__)
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        return 1
    return 0


def end_no_library() -> None:
    """Leave out the ends of objects that libraries made in the warm process: they go with the process."""
    for finalizer in list(getattr(weakref.finalize, "_registry", ())):
        finalizer.atexit = False


def use_threads(number: int) -> None:
    """Set the libraries' number of threads, as a cold process reads it at import; here they are imported with one."""
    if number == 1 or "numpy" not in sys.modules:
        return
    from threadpoolctl import threadpool_limits

    threadpool_limits(number)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(number)


def third_party(before: set[str]) -> list[str]:
    """Return the names of third-party modules that were imported since, in order."""
    found = []
    for name in [name for name in sys.modules if name not in before]:
        origin = getattr(getattr(sys.modules[name], "__spec__", None), "origin", None)
        if origin and Path(str(origin)).is_relative_to(sys.prefix):
            found.append(name)
    return found
