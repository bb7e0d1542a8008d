"""Test warm starts: a job's process equals a cold one, and nothing outlives its run."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from conftest import SCRIPTS
from mllm.execution import environment

JOB = """
import os, signal, subprocess, sys, time
from pathlib import Path
def main(what):
    if what == "facts":
        print(sys.argv, os.getcwd(), oct(os.umask(0)), sys.path[0], __file__, __name__, sorted(os.environ.items()), sep="\\n")
        print(sys.stdin.read(), file=sys.stderr)
        subprocess.run(["sh", "-c", "echo grandchild; echo error >&2"])
    elif what == "status":
        sys.exit(3)
    elif what == "words":
        sys.exit("error: words")
    elif what == "error":
        raise ValueError("wrong")
    elif what == "syntax":
        compile("a b", "x.py", "exec")
    elif what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "interrupt":
        os.kill(os.getpid(), signal.SIGINT); time.sleep(1)
    elif what == "later":
        import atexit, threading
        atexit.register(print, "at exit")
        threading.Thread(target=lambda: (time.sleep(0.1), print("thread"))).start()
    elif what == "warm":
        print("yaml" in sys.modules, any(m.split(".")[0] == "mllm" for m in sys.modules), os.getsid(0) == os.getpid())
        import yaml
    elif what == "edited":
        from mllm import edited
        print(edited.VALUE)
    elif what == "polars":
        known = "polars" in sys.modules
        import polars
        print(known, polars.DataFrame({"a": [2, 1]}).sort("a")["a"].to_list())
    elif what == "memory":
        print(len(bytearray(b"x") * 150_000_000))
    elif what == "wait":
        sleeper = subprocess.Popen(["sleep", "100"])
        Path("pids").write_text(f"{os.getpid()} {sleeper.pid}")
        if Path("again").exists(): print("again"); sleeper.kill(); return
        time.sleep(100)
main(sys.argv[1])
"""


class House:
    """Make a folder like the project's with one script; return it with its interface to warm starts."""

    def __init__(self, folder: Path):
        self.folder, execution = folder, folder / "workflow/scripts/mllm/execution"
        execution.mkdir(parents=True)
        for file in (SCRIPTS / "mllm/execution").glob("warm*.py"):
            shutil.copy2(file, execution)
        (folder / "workflow/scripts/job.py").write_text(JOB)
        (folder / "workflow/scripts/mllm/__init__.py").touch()
        self.execution = execution
        self.environment: dict[str, str] = {}

    @property
    def interface(self) -> ModuleType:
        spec = importlib.util.spec_from_file_location("warm", self.execution / "warm.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def start(self, what: str, environment: dict[str, str] | None = None) -> subprocess.Popen:
        command = ["bash", "-c", f"set -euo pipefail; python workflow/scripts/job.py {what}"]
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen(command, cwd=self.folder, env=environment or self.environment, text=True, **streams)

    def run(self, what: str, environment: dict[str, str] | None = None) -> tuple[int, str, str]:
        process = self.start(what, environment)
        out, error = process.communicate("input")
        return process.returncode, out, error

    def at_work(self) -> list[int]:
        """Start the job that waits; return its process and its child's, once both exist."""
        self.process = self.start("wait")
        return self.pids()

    def pids(self) -> list[int]:
        return wait_for(lambda: [int(p) for p in (self.folder / "pids").read_text().split()])

    def warm_process(self) -> int:
        folder = str(self.interface.folder_of(self.environment))
        return next(p for p in sorted(processes()) if words(p)[2:3] == [folder])  # the first: children look alike


def processes() -> list[int]:
    return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()]


def words(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(found, seconds: float = 30):
    """Wait until a function returns a true value, and return it; its errors count as false."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if result := found():
                return result
        except (OSError, ValueError):
            pass
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def gone(*pids: int) -> None:
    wait_for(lambda: not any(map(alive, pids)))


@pytest.fixture
def house(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    house = House(tmp_path / "house")
    with house.interface.offered() as house.environment:
        yield house


@pytest.mark.parametrize("what", ["facts", "status", "words", "error", "syntax", "kill", "interrupt", "later"])
def test_a_warm_job_is_what_a_cold_one_is(house, what):
    """Compare status or signal, output, errors to the letter, arguments, folder, umask, environment, exit handlers."""
    assert house.run("warm")[1] == "False False True\n"
    cold = house.run(what, {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"})
    assert house.run(what) == cold
    assert house.run("warm")[1] == "True False True\n", (
        "what an earlier job imported is there, and not the project's own"
    )


def test_an_edit_during_a_run_counts(house):
    for value in (1, 2):
        (house.folder / "workflow/scripts/mllm/edited.py").write_text(f"VALUE = {value}  # {'x' * value}\n")
        assert house.run("edited") == (0, f"{value}\n", "")


def test_a_later_runs_first_job_is_warm(house):
    """The next run's warm process imports what one run's jobs imported, before it forks; a wrong list does no harm."""
    assert house.run("warm")[1] == "False False True\n"
    kept = house.execution / "__pycache__/warm-job.txt"
    wait_for(kept.exists)
    kept.write_text("no.such.module\n" + kept.read_text())
    with house.interface.offered() as environment:
        assert house.run("warm", environment) == (0, "True False True\n", "")


def test_it_can_be_turned_off(house, monkeypatch):
    monkeypatch.setenv("MLLM_COLD", "1")
    with house.interface.offered() as environment:
        assert environment == dict(os.environ)
    assert house.run("warm", environment)[1] == "False False False\n"


def test_the_job_dies_with_the_run(house, tmp_path):
    """When the owner is killed, its jobs, their processes, the warm process and its folder disappear."""
    code = f"""
import subprocess, sys; sys.path.insert(0, {str(house.execution)!r}); import warm
subprocess.run(["bash", "-c", "python workflow/scripts/job.py wait; touch went-on"], env=warm.offer())
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=house.folder)
    pids = house.pids()
    folder = next(Path(words(p)[2]) for p in processes() if words(p)[1:2] == [str(house.execution / "warm_process.py")])
    process.kill()
    process.wait()
    gone(*pids)
    wait_for(lambda: not folder.exists())
    wait_for(
        lambda: (house.folder / "went-on").exists()
    )  # the shell lives on, as after a cold start; the client has ended


def test_a_killed_warm_process_costs_a_line(house):
    """When the warm process dies, its jobs die too and restart cold; later jobs start cold at once."""
    pids = house.at_work()
    (house.folder / "again").touch()
    os.kill(house.warm_process(), signal.SIGKILL)
    out, error = house.process.communicate()
    assert (house.process.returncode, out) == (0, "again\n")
    assert error == "warm starts: the warm process died; jobs start cold from here on\n"
    gone(*pids)
    assert house.run("warm") == (0, "False False False\n", "")


def test_one_that_cannot_start_costs_a_line(house):
    (house.execution / "warm_process.py").write_text("raise OSError('no room')")
    assert house.run("status") == (
        3, "", "warm starts: the warm process does not start (OSError: no room); jobs start cold from here on\n"
    )  # fmt: skip
    assert house.run("status") == (3, "", "")


def test_polars_is_imported_once_and_starts_its_threads_in_each_job(house):
    runs = [house.run("polars") for _ in range(3)]
    assert runs == [(0, f"{known} [1, 2]\n", "") for known in (False, True, True)]


def test_polars_is_left_to_the_jobs_where_its_beginning_has_another_name(house):
    file = house.execution / "warm_modules.py"
    file.write_text(file.read_text().replace('"__register_startup_deps"', '"renamed"'))
    assert [house.run("polars") for _ in range(3)] == [(0, "False [1, 2]\n", "")] * 3


def test_a_library_that_starts_threads_is_noticed(house):
    """No fork happens beside a thread: here that of polars, which is not held back."""
    file = house.execution / "warm_modules.py"
    text = file.read_text()
    file.write_text(text.replace("hold_back_threads() if", "None if"))
    assert file.read_text() != text
    assert house.run("polars") == (0, "False [1, 2]\n", "")
    code, out, error = house.run("polars")
    assert (code, out) == (0, "False [1, 2]\n")
    assert "threads when it was imported; jobs start cold" in error


def test_signals_reach_the_job(house):
    for number in (signal.SIGTERM, signal.SIGINT):
        pids = house.at_work()
        house.process.send_signal(number)  # the client's process, which bash became
        house.process.wait()
        gone(pids[0])
        assert house.process.returncode == -number
        if number == signal.SIGINT:
            gone(pids[1])
        (house.folder / "pids").unlink()


def test_a_killed_job_is_killed_for_snakemake_too(house):
    pids = house.at_work()
    os.kill(pids[0], signal.SIGKILL)
    assert house.process.wait() == -signal.SIGKILL
    assert house.run("status")[0] == 3  # the warm process lives on


def test_a_killed_client_takes_the_job_along(house):
    pids = house.at_work()
    house.process.kill()
    gone(*pids)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_nobody_else_starts_a_job(house):
    """Other users cannot open the folder; if it is opened, the client checks the owner of the socket's other end."""
    house.run("warm")
    folder = house.interface.folder_of(house.environment)
    assert folder.stat().st_mode & 0o777 == 0o700
    code = f"""
import os, socket
os.setuid(65534)
s = socket.socket(socket.AF_UNIX); s.settimeout(10); s.connect({str(folder / "socket")!r})
print(s.recv(10))
"""
    command = [sys.executable, "-IS", "-c", code]
    assert "PermissionError" in subprocess.run(command, capture_output=True, text=True).stderr
    folder.chmod(0o755)
    (folder / "socket").chmod(0o777)
    assert subprocess.run(command, capture_output=True, text=True).stdout == "b''\n"


def test_a_job_gets_the_policy_that_lets_waiting_threads_sleep(monkeypatch):
    """The user can set another policy; common.smk calls it before any job."""
    monkeypatch.delenv("OMP_WAIT_POLICY")
    environment.let_waiting_threads_sleep()
    assert os.environ["OMP_WAIT_POLICY"] == "passive"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    environment.let_waiting_threads_sleep()
    assert os.environ["OMP_WAIT_POLICY"] == "active"


def benchmark(file: Path) -> dict[str, str]:
    header, values = file.read_text().splitlines()[:2]
    return dict(zip(header.split("\t"), values.split("\t"), strict=True))


def test_snakemakes_benchmarks_are_the_childs(house):
    """In a run of Snakemake, jobs are warm and benchmarks have their figures; afterwards nothing is left."""
    (house.folder / "Snakefile").write_text(f"""
import os, sys; from functools import partial; sys.path[:0] = [{str(house.execution)!r}, {str(SCRIPTS)!r}]; import warm
from mllm.execution import snakemake_patches, snakemake_speed
rule all:
    input: expand("{{i}}.txt", i=range(3)), "cold"
rule cold:
    output: "cold"
    benchmark: "cold.tsv"
    shell: "sleep 0.8; touch {{output}}"
rule job:
    output: "{{i}}.txt"
    benchmark: "{{i}}.tsv"
    shell: "python workflow/scripts/job.py memory > {{output}}; python workflow/scripts/job.py warm >> {{output}}"
onstart:
    folder = warm.use_in_this_run()
    snakemake_patches.measure_warm_jobs(partial(warm.usage, folder))
    snakemake_speed.look_at_no_warm_jobs(partial(warm.started, folder))
    print("folder", folder)
""")
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2"], cwd=house.folder, capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for i in range(3):
        lines = (house.folder / f"{i}.txt").read_text().splitlines()
        assert lines[0] == "150000000" and lines[1].endswith("False True")
        figures = benchmark(house.folder / f"{i}.tsv")
        assert 143 < float(figures["max_rss"]) < 400 and figures["max_vms"] == "NA"
        assert 0 < float(figures["cpu_time"]) < 60
    assert float(benchmark(house.folder / "cold.tsv")["max_rss"]) > 0.5, "Snakemake looks at what is not warm"
    folder = Path(next(line for line in done.stdout.splitlines() if line.startswith("folder")).split()[1])
    wait_for(lambda: not folder.exists())
