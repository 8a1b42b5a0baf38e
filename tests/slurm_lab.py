"""A private Slurm cluster in one folder: real daemons without systemd, root or a file elsewhere; gone with the process that started it.

`netns`: controller and nodes (node1, node2, ...) in network, UTS and mount namespaces of their own on one bridge, each with its own
loopback and /dev/shm, so that a wrong MASTER_ADDR fails as on a real cluster. Needs root or user namespaces. `loop`: all on 127.0.0.1,
nodes are called 127.0.0.2, ...; needs nothing. By hand: `python tests/slurm_lab.py FOLDER`, then `FOLDER/enter sbatch ...`.
"""

import contextlib
import json
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from slurm_layout import PATH, Layout, best_mode, free_ports

ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")
START_NODE = """\
hostname "$1"; ip link set lo up; mount -t tmpfs tmpfs /dev/shm
until ip link show eth0 >/dev/null 2>&1; do sleep 0.02; done
ip addr add "10.77.0.$2/24" dev eth0; ip link set eth0 up; conf=$3; name=$1; shift 3
exec "$@" slurmd -D -N "$name" -f "$conf"
"""


class Daemons:
    """The processes of a cluster, children of this one."""

    def __init__(self, layout: Layout) -> None:
        self.layout, self.root, self.conf = layout, Path(layout.root), f"{layout.root}/slurm.conf"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH", "SRUN"))}
        self.env = kept | {"SLURM_CONF": self.conf, "PATH": PATH}
        self.started: list[tuple[str, subprocess.Popen[bytes]]] = []

    def spawn(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        """Ends with this process, however that ends."""
        with open(self.root / "log" / f"{name}.console", "ab") as log:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *words], env=self.env, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, cwd=self.root, start_new_session=True,
            )  # fmt: skip
        self.started.append((name, process))
        return process

    def until(self, ready: Callable[[], object], what: str, seconds: float = 60) -> None:
        """Wait for it; RuntimeError where a daemon ends meanwhile."""
        end = time.monotonic() + seconds
        while not ready():
            for name, process in self.started:
                if process.poll() is not None:
                    said = (self.root / "log" / f"{name}.console").read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"{name} ended with {process.returncode}: {said}")
            if time.monotonic() > end:
                raise TimeoutError(what)
            time.sleep(0.05)

    def start(self) -> None:
        """munged, slurmctld and a slurmd per node."""
        run, layout = self.root / "run", self.layout
        files = {"key-file": self.root / "munge.key", "socket": run / "munge.sock", "pid-file": run / "munged.pid"}
        files |= {"log-file": self.root / "log/munged.log", "seed-file": run / "munged.seed"}
        options = [f"--{name}={file}" for name, file in files.items()]
        self.spawn(
            "munged", *layout.as_user, "munged", "-F", "--force", *options
        )  # in a user namespace /tmp is nobody's
        self.until((run / "munge.sock").exists, "munged")
        self.spawn("slurmctld", *layout.as_user, "slurmctld", "-D", "-c", "-f", self.conf)
        for i, name in enumerate(layout.names):
            if layout.mode == "loop":
                self.spawn(f"slurmd.{name}", "slurmd", "-D", "-N", name, "-f", self.conf)
            else:
                self.start_node(i, name)

    def start_node(self, i: int, name: str) -> None:
        """In namespaces of its own, with one end of a cable whose other end is on the bridge."""
        words = ["unshare", "--net", "--uts", "--mount", "sh", "-ec", START_NODE, "node", name, str(11 + i), self.conf]
        process = self.spawn(f"slurmd.{name}", *words, *self.layout.as_user)
        mine = os.readlink("/proc/self/ns/net")
        self.until(lambda: os.readlink(f"/proc/{process.pid}/ns/net") != mine, f"namespaces of {name}")
        for line in (f"link add v{i} type veth peer name eth0 netns {process.pid}", f"link set v{i} master br0 up"):
            subprocess.run(["ip", *line.split()], check=True, env=self.env)

    def be_init(self) -> None:
        """Process 1 of the namespaces."""
        bridge = ("link set lo up", "link add br0 type bridge", "addr add 10.77.0.1/24 dev br0", "link set br0 up")
        commands = [["hostname", "ctl"], *(["ip", *line.split()] for line in bridge)]
        for words in [*commands, ["mount", "--bind", str(self.root / "hosts"), "/etc/hosts"]]:
            subprocess.run(words, check=True, env=self.env)
        self.start()
        with contextlib.suppress(ChildProcessError):
            while True:  # orphans come here to be reaped
                os.wait()


class SlurmLab:
    """A running cluster, to be used as a context."""

    def __init__(self, root: Path, *, mode: str = "", proctrack: str = "linuxproc", nodes: int = 2) -> None:
        mode = mode or best_mode()
        self.root = root.resolve()
        self.layout = Layout(str(self.root), mode, proctrack, nodes, free_ports(nodes + 1), os.geteuid(), os.getegid())
        self.daemons = Daemons(self.layout)
        self.prefix: list[str] = []

    def __enter__(self) -> "SlurmLab":
        self.layout.write()
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self) -> None:
        """Daemons, until every node is idle."""
        if self.layout.mode == "loop":
            self.daemons.start()
        else:
            self.start_namespaces()
        idle = ["idle"] * self.layout.nodes
        self.daemons.until(
            lambda: self.run("sinfo", "-h", "-N", "-p", "debug", "-o", "%T", check=False).split() == idle,
            "nodes to be idle",
        )

    def start_namespaces(self) -> None:
        """All daemons in one process namespace: with its first process everything ends, interfaces too."""
        user = ["--user", "--map-root-user"] if self.layout.as_user else []
        flags = ["--net", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        inner = [sys.executable, str(Path(__file__).resolve()), "--inner", json.dumps(asdict(self.layout))]
        process = self.daemons.spawn("inner", "unshare", *user, *flags, *inner)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        self.daemons.until(lambda: children.read_text().strip(), "the namespaces")
        into = ["--user", "--preserve-credentials"] if user else []
        first = children.read_text().split()[0]
        self.prefix = ["nsenter", "-t", first, *into, "--net", "--uts", "--mount", "--pid"]

    def __exit__(self, *_: object) -> None:
        self.run("scancel", "--user", pwd.getpwuid(self.layout.uid).pw_name, check=False)
        end = time.monotonic() + 15
        while time.monotonic() < end and self.run("squeue", "-h", check=False).strip():
            time.sleep(0.1)
        self.run("scontrol", "shutdown", check=False)
        for name, process in reversed(self.daemons.started):
            (process.kill if name == "inner" else process.terminate)()  # unshare ignores TERM
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def words(self, cwd: Path, *command: str) -> list[str]:
        """As it is started from outside."""
        return [*self.prefix, *([f"--wd={cwd}"] if self.prefix else []), *self.layout.as_user, *command]

    def run(self, *command: str, cwd: Path | None = None, check: bool = True, env: dict[str, str] | None = None) -> str:
        """Output of a command on the controller's host; AssertionError with both outputs where it fails and `check`."""
        cwd = cwd or self.root
        done = subprocess.run(
            self.words(cwd, *command), env=self.daemons.env | (env or {}), cwd=cwd, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def sbatch(self, *words: str, cwd: Path, env: dict[str, str] | None = None) -> str:
        """Id of the job."""
        return self.run("sbatch", "--parsable", *words, cwd=cwd, env=env).strip().split(";")[0]

    def job(self, job: str) -> dict[str, str]:
        """What scontrol shows; of an array's task, ARRAY_TASK."""
        lines = self.run("scontrol", "-o", "show", "job", job).splitlines()
        return dict(word.split("=", 1) for word in lines[0].split() if "=" in word)

    def wait(self, job: str, *states: str, seconds: float = 60) -> dict[str, str]:
        """Until it has ended, or is in one of these states; the last line of the message is the controller's."""
        end = time.monotonic() + seconds
        while (found := self.job(job))["JobState"] not in (states or ENDED):
            if time.monotonic() > end:
                said = (self.root / "log/slurmctld.log").read_text(errors="replace")[-3000:]
                raise AssertionError(f"job {job} is {found['JobState']} ({found['Reason']}) after {seconds} s\n{said}")
            time.sleep(0.1)
        return found


def main(folder: str) -> None:
    """A cluster for a person, until TERM or Ctrl-C."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.suppress(KeyboardInterrupt), SlurmLab(Path(folder), mode=os.environ.get("MODE", "")) as lab:
        enter = lab.root / "enter"
        words = " ".join(lab.words(Path("$PWD"), '"$@"')).replace("--wd=$PWD", '--wd="$PWD"')
        enter.write_text(f"#!/bin/sh\nexport SLURM_CONF={lab.daemons.conf} PATH={PATH}\nexec {words}\n")
        enter.chmod(0o755)
        print(f"{', '.join(lab.layout.names)} are idle; {enter} sbatch ...", flush=True)
        signal.pause()


if __name__ == "__main__":
    if sys.argv[1] == "--inner":
        Daemons(Layout(**json.loads(sys.argv[2]))).be_init()
    else:
        main(sys.argv[1])
