"""How a private Slurm cluster is laid out: its configuration, its nodes' names and addresses, and what it needs of the machine."""

import contextlib
import os
import pwd
import random
import shutil
import socket
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "sinfo", "squeue", "scancel")
GPUS = "/dev/null,/dev/zero,/dev/full,/dev/random,/dev/urandom,/dev/tty,/dev/ptmx,/dev/console"
"""Eight devices for Slurm to hand out: it only looks whether they exist and are devices."""
CONF = """\
ClusterName=lab
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
# A requeued job waits until its old credential has expired; less than 5 s are taken as the default, two minutes.
AuthInfo=socket={root}/run/munge.sock,cred_expire=5
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
# With -c the controller counts anew each time; what is named after a job must not meet that of the last cluster.
FirstJobId={first_job}
StateSaveLocation={root}/state
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdPidFile={root}/run/slurmd.%n.pid
SlurmdLogFile={root}/log/slurmd.%n.log
SlurmdSpoolDir={root}/spool/%n
# Nodes may claim more than the machine has, so that the scripts' own #SBATCH lines are accepted.
SlurmdParameters=config_overrides
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/{proctrack}
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1000
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
PropagateResourceLimits=NONE
ReturnToService=2
KillWait=5
MinJobAge=3600
SlurmctldTimeout=10
SlurmdTimeout=60
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
PartitionName=low Nodes=ALL PriorityTier=1 PreemptMode=REQUEUE GraceTime=5 MaxTime=INFINITE State=UP
PartitionName=high Nodes=ALL PriorityTier=9 PreemptMode=OFF MaxTime=INFINITE State=UP
PartitionName=debug Nodes=ALL PreemptMode=OFF Default=YES DefaultTime=10 MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """Programs that are not on this machine; Debian has them in slurmctld, slurmd, slurm-client and munge."""
    return [name for name in NEEDED if not shutil.which(name, path=PATH)]


def best_mode() -> str:
    """`netns` where namespaces can be made."""
    if not shutil.which("ip", path=PATH):
        return "loop"
    words = ["unshare", *([] if os.geteuid() == 0 else ["-Ur"]), "-nmpuf", "true"]
    return "loop" if subprocess.run(words, capture_output=True).returncode else "netns"


def free_ports(count: int) -> int:
    """The first of so many in a row, below those that the system hands out."""
    for first in random.sample(range(16_000, 30_000, 50), 200):
        with contextlib.ExitStack() as probes:
            try:
                for port in range(first, first + count):
                    probes.enter_context(socket.socket()).bind(("127.0.0.1", port))
                return first
            except OSError:
                continue
    raise RuntimeError("no free ports")


@dataclass(frozen=True)
class Layout:
    """What a cluster is made from; the process inside the namespaces is started with it."""

    root: str
    mode: str
    proctrack: str
    nodes: int
    port: int
    uid: int
    gid: int

    @property
    def names(self) -> list[str]:
        """Of the nodes."""
        return [f"127.0.0.{i + 2}" if self.mode == "loop" else f"node{i + 1}" for i in range(self.nodes)]

    @property
    def as_user(self) -> list[str]:
        """The user's own id again, inside a user namespace in which it is root: there slurmctld would try to drop groups and die."""
        if self.mode == "loop" or self.uid == 0:
            return []
        return ["unshare", "--user", f"--map-user={self.uid}", f"--map-group={self.gid}"]

    def write(self) -> None:
        """Folders, key and configuration."""
        root = Path(self.root)
        for name in ("run", "state", "log", "spool"):
            (root / name).mkdir(parents=True, exist_ok=True)
        root.chmod(0o755)  # munged refuses a folder that others may write
        key = root / "munge.key"
        key.touch(0o600)
        key.write_bytes(os.urandom(128))
        lines = CONF.format(
            **asdict(self), user=pwd.getpwuid(self.uid).pw_name, first_job=random.randrange(1_000, 60_000)
        )
        lines += f"SlurmctldHost={'localhost(127.0.0.1)' if self.mode == 'loop' else 'ctl(10.77.0.1)'}\n"
        hosts = "127.0.0.1 localhost\n10.77.0.1 ctl\n"
        machine = socket.gethostname().split(".")[0]
        for i, name in enumerate(self.names):
            here = f"NodeHostname={machine} NodeAddr=127.0.0.1 Port={self.port + 1 + i}"
            there = f"NodeAddr=10.77.0.{11 + i} Port={self.port + 1}"
            where = here if self.mode == "loop" else there
            lines += f"NodeName={name} {where} CPUs=128 RealMemory=500000 Gres=gpu:8 State=UNKNOWN\n"
            hosts += f"10.77.0.{11 + i} {name}\n"
        (root / "slurm.conf").write_text(lines)
        (root / "gres.conf").write_text(f"Name=gpu File={GPUS}\n")
        (root / "hosts").write_text(hosts)
