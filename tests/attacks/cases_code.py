"""Group *Code on the node*: what the trainer's process loads is made other than what was signed."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.attacks.case import Case, Finding, Missed, NotTried
from tests.attacks.scene import TORCH, Scene
from tests.cluster import Cluster

GROUP = "Code on the node"
PACKAGES = "/usr/lib/python3/dist-packages"
STDLIB = "/usr/lib/python3.11"
LIBRARIES = "/usr/lib/x86_64-linux-gnu"
OPTIM = f"{TORCH}/optim"
_LOADS = "T1574.006"


def _sed(path: str) -> str:
    return f"sed -i '1i # mallory' {path}"


def _append(path: str) -> str:
    return f"echo '# mallory' >> {path}"


# A .pyc with the header that Python wants for this source, and other code. ------------------------

_POISON = """
import importlib.util, marshal, os, struct
source = "{source}"
status = os.stat(source)
header = importlib.util.MAGIC_NUMBER + struct.pack("<III", 0, int(status.st_mtime), status.st_size)
code = compile("evil = True", source, "exec")
with open(importlib.util.cache_from_source(source), "wb") as file:
    file.write(header + marshal.dumps(code))
"""

_MAPPED = """
import mmap, os, sys, time
fd = os.open("{path}", os.O_RDWR)
view = mmap.mmap(fd, 0)
os.close(fd)
print(time.time(), flush=True)
view[:9] = b"# mallory"
time.sleep(120)
"""

_LOADED = f"""
import ctypes, shutil, time
shutil.copy("{LIBRARIES}/libm.so.6", "/tmp/mapped.so")
ctypes.CDLL("/tmp/mapped.so")
time.sleep(120)
"""


def _undone(scene: Scene) -> float:
    path = f"{OPTIM}/radam.py"
    return scene.sh(f"cp {path} /tmp/was; {_append(path)}; cat /tmp/was > {path}")


def _upper(scene: Scene) -> float:
    """Root on the node; the file is there in the overlay's lower layers alone until now."""
    place = scene.upper() / f"{OPTIM}/nadam.py".lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    began = time.time()
    place.write_text("# mallory\n")
    return began


def _upper_new(scene: Scene) -> float:
    place = scene.upper() / f"{PACKAGES}/from_the_node.pth".lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    began = time.time()
    place.write_text("import os\n")
    return began


def _upper_read(scene: Scene) -> None:
    for path in scene.upper().rglob("*"):
        if path.is_file():
            path.read_bytes()


def _through_root(scene: Scene) -> float:
    """Root on the node, by the trainer's own view."""
    began = time.time()
    path = f"/proc/{scene.first_process()}/root{OPTIM}/asgd.py"
    with open(path, "a") as file:  # noqa: PTH123 goes through the kernel's link
        file.write("# mallory\n")
    return began


def _image_collected(scene: Scene) -> None:
    """As the kubelet does where the disk is full: a name removed, what nothing uses collected."""
    assert isinstance(scene.lab.target, Cluster), "found a cluster of the user's, expected our own"
    ctr = ("ctr", "--address", str(scene.lab.target.runtime_socket()), "-n", "k8s.io", "images")
    (used, *_) = (c["image"] for c in scene.pod["spec"]["containers"])
    for words in (
        ("tag", "--force", used, "unused.example/x:1"),
        ("rm", "--sync", "unused.example/x:1"),
    ):
        subprocess.run([*ctr, *words], check=True, capture_output=True, timeout=60)


@contextlib.contextmanager
def _mounted_in_scratch(scene: Scene) -> Iterator[None]:
    scene.sh("echo x > /tmp/below")
    with scene.mounted("/tmp/below"):
        scene.sh("cat /tmp/below")
        yield


CASES = (
    Case(
        GROUP, "installed optimizer edited by sed -i", "T1554",
        Finding("file.changed", f"{OPTIM}/adam.py", tells=("+# mallory",)),
        lambda s: s.sh(_sed(f"{OPTIM}/adam.py")),
        lambda s: s.sh(f"grep lr {OPTIM}/adam.py; sha256sum {OPTIM}/*.py; tar c {OPTIM} | wc"),
        "the same files read, hashed and packed",
    ),
    Case(
        GROUP, "installed optimizer appended to", "T1554",
        Finding("file.changed", f"{OPTIM}/sgd.py", tells=("+# mallory",)),
        lambda s: s.sh(_append(f"{OPTIM}/sgd.py")),
        lambda s: s.sh(_append("/tmp/notes.log")),
        "a log in scratch appended to",
    ),
    Case(
        GROUP, "Python's random.py edited", "T1554",
        Finding("file.changed", f"{STDLIB}/random.py", tells=("+# mallory",)),
        lambda s: s.sh(_append(f"{STDLIB}/random.py")),
        lambda s: s.sh("cd /tmp && echo x > r.log && mv r.log r.log.1 && gzip -f r.log.1"),
        "a log rotated and packed",
    ),
    Case(
        GROUP, "PyTorch's data loader edited", "T1554",
        Finding("file.changed", f"{TORCH}/utils/data/dataloader.py", tells=("+# mallory",)),
        lambda s: s.sh(_append(f"{TORCH}/utils/data/dataloader.py")),
        lambda s: s.sh("cat /checkpoints/latest.pt > /checkpoints/copy.pt"),
        "a checkpoint copied",
    ),
    Case(
        GROUP, "edited by kubectl cp", "T1554",
        Finding("file.changed", f"{OPTIM}/rprop.py"),
        lambda s: s.copy_in("# mallory\n", f"{OPTIM}/rprop.py"),
        lambda s: s.copy_out(f"{OPTIM}/rprop.py"),
        "the file fetched by kubectl cp",
    ),
    Case(
        GROUP, ".pth file dropped", "T1546.018",
        Finding("import.changed", f"{PACKAGES}/mallory.pth"),
        lambda s: s.sh(f"echo 'import os' > {PACKAGES}/mallory.pth"),
        lambda s: s.sh("mkdir -p /tmp/venv/site-packages; echo x > /tmp/venv/site-packages/a.pth"),
        "one in scratch, where nothing is imported from",
    ),
    Case(
        GROUP, "sitecustomize dropped", "T1546.018",
        Finding("import.changed", f"{PACKAGES}/sitecustomize.py"),
        lambda s: s.sh(f"echo 'evil = 1' > {PACKAGES}/sitecustomize.py"),
        lambda s: s.py("import site; site.getsitepackages()"),
        "Python asked where it would look",
    ),
    Case(
        GROUP, "usercustomize dropped", "T1546.018",
        Finding("import.changed", "/root/.local/lib/python3.11/site-packages/usercustomize.py"),
        lambda s: s.sh(
            "mkdir -p /root/.local/lib/python3.11/site-packages;"
            "echo 'evil = 1' > /root/.local/lib/python3.11/site-packages/usercustomize.py"
        ),
        lambda s: s.sh("python3 -m site; python3 -m pip --version || true"),
        "Python asked for the user's packages, and for pip, which is absent",
    ),
    Case(
        GROUP, "PYTHONPATH to scratch", "T1574.007",
        Finding("env.loader", tells=("PYTHONPATH", "/tmp/mallory")),
        lambda s: s.held("PYTHONPATH=/tmp/mallory exec python3 -c 'import time; time.sleep(120)'"),
        lambda s: s.sh(f"PYTHONPATH=/workspace:{PACKAGES} python3 -c 'import random'"),
        "PYTHONPATH to signed code",
    ),
    Case(
        GROUP, "HOME in scratch, with a usercustomize", "T1546.018",
        Finding("env.loader", tells=("HOME", "/tmp/mallory-home")),
        lambda s: s.held(
            "mkdir -p /tmp/mallory-home/.local/lib/python3.11/site-packages;"
            "echo > /tmp/mallory-home/.local/lib/python3.11/site-packages/usercustomize.py;"
            "HOME=/tmp/mallory-home exec python3 -c 'import time; time.sleep(120)'"
        ),
        lambda s: s.sh(
            "HOME=/root XDG_CACHE_HOME=/tmp/c TORCHINDUCTOR_CACHE_DIR=/tmp/c exec sleep 25"
        ),
        "HOME as the image has it, and caches in scratch",
    ),
    Case(
        GROUP, "LD_PRELOAD of a library in scratch", _LOADS,
        Finding("env.loader", tells=("LD_PRELOAD", "/tmp/preload.so")),
        lambda s: s.held(
            f"cp {LIBRARIES}/libm.so.6 /tmp/preload.so; LD_PRELOAD=/tmp/preload.so exec sleep 120"
        ),
        lambda s: s.sh(f"LD_PRELOAD={LIBRARIES}/libm.so.6 sleep 0.1"),
        "LD_PRELOAD of a library of the image",
    ),
    Case(
        GROUP, "a library loaded from scratch", "T1129",
        Finding("map.foreign", "/tmp/mapped.so"),
        lambda s: s.held_py(_LOADED),
        lambda s: s.py("import ctypes; ctypes.CDLL('libm.so.6')"),
        "a library of the image loaded by name",
    ),
    Case(
        GROUP, "PYTHONSTARTUP", "T1546",
        Finding("env.loader", tells=("PYTHONSTARTUP", "/tmp/start.py")),
        lambda s: s.held("echo > /tmp/start.py; PYTHONSTARTUP=/tmp/start.py exec sleep 120"),
        lambda s: s.sh("PYTHONSTARTUP=/workspace/startup.py python3 -c 'import os'"),
        "PYTHONSTARTUP of signed code",
    ),
    Case(
        GROUP, "/etc/ld.so.preload", _LOADS,
        Finding("import.changed", "/etc/ld.so.preload"),
        lambda s: s.sh(f"echo {LIBRARIES}/libm.so.6 > /etc/ld.so.preload"),
        lambda s: s.sh("ldconfig -p | wc -l; test -e /etc/ld.so.preload || true"),
        "the linker's cache listed",
    ),
    Case(
        GROUP, "poisoned .pyc with a matching header", "T1574",
        Finding("bytecode.mismatch", f"{OPTIM}/__pycache__/adadelta.cpython-311.pyc"),
        lambda s: s.py(_POISON.format(source=f"{OPTIM}/adadelta.py")),
        lambda s: s.py("import psutil.tests"),
        "__pycache__ written by an import",
    ),
    Case(
        GROUP, "shared object replaced", "T1574",
        Finding("file.changed", f"{STDLIB}/lib-dynload/_queue.cpython-311-x86_64-linux-gnu.so"),
        lambda s: s.sh(
            f"cd {STDLIB}/lib-dynload; cp _queue.*.so q.so; echo x >> q.so; mv q.so _queue.*.so"
        ),
        lambda s: s.py("import _queue"),
        "the same loaded",
    ),
    Case(
        GROUP, "NCCL plugin dropped", "T1574",
        Finding("import.changed", f"{LIBRARIES}/libnccl-net.so"),
        lambda s: s.sh(f"cp {LIBRARIES}/libm.so.6 {LIBRARIES}/libnccl-net.so"),
        lambda s: s.py("import ctypes; ctypes.CDLL('libm.so.6'); ctypes.CDLL('libz.so.1')"),
        "libraries looked for where the plugin would lie",
    ),
    Case(
        GROUP, "NCCL plugin by variable", "T1574.006",
        Finding("env.loader", tells=("NCCL_NET_PLUGIN", "mallory")),
        lambda s: s.held("NCCL_NET_PLUGIN=mallory exec sleep 120"),
        lambda s: s.sh("NCCL_DEBUG=INFO NCCL_SOCKET_IFNAME=eth0 sleep 0.1"),
        "NCCL's other variables",
    ),
    Case(
        GROUP, "/etc/nccl.conf", "T1574",
        Finding("import.changed", "/etc/nccl.conf", tells=("mallory",)),
        lambda s: s.sh("echo NCCL_NET_PLUGIN=mallory > /etc/nccl.conf"),
        lambda s: s.sh("cat /etc/nccl.conf || true; cp /etc/hosts /tmp/nccl.conf"),
        "looked for; a file of its name in scratch",
    ),
    Case(
        GROUP, "CUDA injection variable", _LOADS,
        Finding("env.loader", tells=("CUDA_INJECTION64_PATH", "/tmp/inject.so")),
        lambda s: s.held("CUDA_INJECTION64_PATH=/tmp/inject.so exec sleep 120"),
        lambda s: s.sh("CUDA_VISIBLE_DEVICES=0 CUDA_LAUNCH_BLOCKING=1 sleep 0.1"),
        "CUDA's other variables",
    ),
    Case(
        GROUP, "written in scratch, moved over code", "T1036.005",
        Finding("file.changed", f"{OPTIM}/adagrad.py"),
        lambda s: s.sh(f"echo '# mallory' > /tmp/a.py; mv /tmp/a.py {OPTIM}/adagrad.py"),
        lambda s: s.sh("cd /tmp; mkdir c; echo k > c/.k; mv c/.k c/k.py; ln c/k.py c/l"),
        "a compiler's cache: renamed and linked within scratch",
    ),
    Case(
        GROUP, "written elsewhere in the root, renamed over code", "T1036.005",
        Finding("file.renamed", f"{OPTIM}/adamax.py"),
        lambda s: s.sh(f"echo '# mallory' > /var/tmp/a.py; mv /var/tmp/a.py {OPTIM}/adamax.py"),
        lambda s: s.sh(
            "cd /checkpoints; echo x > x.part; mv x.part x.done; mkdir runs;"
            "echo e > runs/events.out.tfevents.1; mv runs/events.out.tfevents.1 runs/2"
        ),
        "a checkpoint, and TensorBoard's events, completed by renaming",
    ),
    Case(
        GROUP, "hard-linked into code", "T1036.005",
        Finding("file.renamed", f"{OPTIM}/linked.py"),
        lambda s: s.sh(f"echo '# mallory' > /var/tmp/b.py; ln /var/tmp/b.py {OPTIM}/linked.py"),
        lambda s: s.sh("cd /checkpoints; echo x > kept; ln kept best; ln -s kept latest; rm kept"),
        "a checkpoint kept by a link",
    ),
    Case(
        GROUP, "written through a hard link elsewhere", "T1036.005",
        Finding("file.changed", f"{OPTIM}/rmsprop.py", tells=("written as", "/var/tmp/r.py")),
        lambda s: s.sh(f"ln {OPTIM}/rmsprop.py /var/tmp/r.py; {_append('/var/tmp/r.py')}"),
        lambda s: s.sh("cd /tmp; echo k > k; ln k l; echo k >> l; rm k l"),
        "a file in scratch written through a hard link of it",
    ),
    Case(
        GROUP, "signed file changed through a held mapping", "T1565.001",
        Finding("map.writable", f"{OPTIM}/adamw.py"),
        lambda s: s.held_py(_MAPPED.format(path=f"{OPTIM}/adamw.py")),
        lambda s: s.py(
            "import mmap\n"
            f"with open('{OPTIM}/adamw.py', 'rb') as f:\n"
            "    mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)\n"
            "with open('/tmp/scratch.bin', 'w+b') as f:\n"
            "    f.truncate(4096); m = mmap.mmap(f.fileno(), 0); m[:1] = b'x'; time.sleep(1)\n"
        ),
        "the file mapped for reading, one in scratch for writing",
    ),
    Case(
        GROUP, "signed file removed", "T1485",
        Finding("file.removed", f"{OPTIM}/sparse_adam.py"),
        lambda s: s.sh(f"rm {OPTIM}/sparse_adam.py"),
        lambda s: s.sh("rm -rf /tmp/c /tmp/notes.log"),
        "files in scratch removed",
    ),
    Case(
        GROUP, "signed file's mode opened for all", "T1222.002",
        Finding("file.attributes", f"{OPTIM}/lbfgs.py"),
        lambda s: s.sh(f"chmod 777 {OPTIM}/lbfgs.py"),
        lambda s: s.sh("chmod 755 /tmp/train.log"),
        "a log's mode changed",
    ),
    Case(
        GROUP, "overlay's upper directory written from the node", "T1554",
        Finding("file.changed", f"{OPTIM}/nadam.py", by="", seconds=150),
        _upper, _upper_read,
        "root on the node reads the upper directory",
    ),
    Case(
        GROUP, ".pth put into the upper directory from the node", "T1546.018",
        Finding("import.changed", f"{PACKAGES}/from_the_node.pth", by="", seconds=150),
        _upper_new,
        _image_collected,
        "an image that nothing uses collected",
    ),
    Case(
        GROUP, "edited from the node through /proc/PID/root", "T1554",
        Finding("file.changed", f"{OPTIM}/asgd.py", by=""),
        _through_root,
        lambda s: Path(f"/proc/{s.first_process()}/root{OPTIM}/asgd.py").read_bytes(),
        "read from the node the same way",
    ),
    Case(
        GROUP, "mounted over from the node", "T1574",
        Finding("file.renamed", f"{OPTIM}/swa_utils.py", by="", tells=("mounted over",)),
        lambda s: s.mounted(f"{OPTIM}/swa_utils.py"),
        _mounted_in_scratch,
        "a file of scratch mounted over another one there",
    ),
    Case(
        GROUP, "a write and its undoing within a second", "T1070",
        Finding("file.changed", f"{OPTIM}/radam.py"),
        _undone,
        lambda s: s.py(f"open('{OPTIM}/radam.py', 'r+').close()"),
        "the file opened for writing and left as it was",
    ),
    Case(
        GROUP, "Python program run from scratch", "T1059.006",
        Finding("exec.foreign", "/tmp/evil.py", tells=("interpreter",)),
        lambda s: s.sh("echo 'evil = 1' > /tmp/evil.py; python3 /tmp/evil.py"),
        lambda s: s.sh(
            "cd /tmp; echo 'x = 1' > data.py; python3 -m timeit -n1 -r1 pass /tmp/data.py;"
            f"python3 -c 'pass' /tmp/data.py; python3 {STDLIB}/this.py /tmp/data.py;"
            "sh -c 'cat data.py' /tmp/data.py"
        ),
        "texts, modules and programs of the image run in scratch",
    ),
    Case(
        GROUP, "Python program run from scratch by a link of /proc", "T1059.006",
        Finding("exec.foreign", "/tmp/by_root.py", tells=("/proc/self/root",)),
        lambda s: s.sh(
            "echo 'evil = 1' > /tmp/by_root.py; python3 /proc/self/root/tmp/by_root.py"
        ),
        lambda s: s.sh(
            f"cd {STDLIB}; python3 /proc/self/cwd/this.py; cd /tmp;"
            "python3 /proc/self/root/workspace/startup.py"
        ),
        "programs of the image and signed code run by such links",
    ),
    Case(
        GROUP, "Python program from scratch, read by a text", "T1059.006",
        Missed(
            "what a running interpreter reads is no program that its command line names; who came "
            "in, and the command, are on record"
        ),
        lambda s: s.sh(
            "echo 'evil = 1' > /tmp/read.py; python3 -c 'exec(open(\"/tmp/read.py\").read())'"
        ),
    ),
    Case(
        GROUP, "shared volume changed from another node, then changed back", "T1565.001",
        NotTried("two nodes; code is not on shared volumes: the gate copies it into the pod"),
    ),
)  # fmt: skip
