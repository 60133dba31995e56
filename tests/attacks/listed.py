"""What an attacker does, by the groups in which the field lists it, and where each is carried out.

A phrase names cases of the page, or, where another suite carries it out, a test by file and name.
"""

from __future__ import annotations

from collections.abc import Mapping

#: By group: phrase, and the names of cases or tests (``path::name``).
LISTED: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "Admission": {
        "unsigned, wrongly signed or expired image": (
            "unsigned image",
            "image signed by a stranger",
            "image or code signed by an expired certificate",
        ),
        "unsigned, wrongly signed or expired code": ("unsigned code", "code signed by a stranger"),
        "unsigned, wrongly signed or expired config": (
            "unsigned job",
            "job signed by a stranger",
            "job whose time is over",
        ),
        "signature of another job replayed": ("signature of another job",),
        "another namespace or name": ("signature for another namespace",),
        "signature of the right type by the wrong person": (
            "job signed by who signs images",
            "image signed by who signs jobs",
        ),
        "two signatures by one person under a threshold of two": (
            "two signatures by one person, where two persons must",
        ),
        "attestation of the wrong predicate type": ("attestation of another predicate type",),
        "a tag moved after signing": ("tag moved after signing",),
        "index against platform digest": (
            "signature on an index, image taken by platform",
            "signature on a platform's image, index taken",
        ),
        "a signer revoked between two submissions": ("signer revoked between two submissions",),
        "a manifest of odd paths": (
            "manifest with .., absolute or duplicate paths, links out, odd Unicode",
        ),
    },
    "Config": {
        "submitted again after it was withdrawn, beyond maxRuns": (
            "signed job submitted beyond maxRuns",
        ),
        "in another cluster": ("signed job submitted in another cluster",),
        "learning rate changed": ("learning rate changed",),
        "seed changed": ("seed changed",),
        "optimizer changed": ("optimizer changed",),
        "world size changed": ("world size changed",),
        "data path changed": ("path of data changed",),
        "an environment variable added": ("environment variable added",),
        "a parameter that YAML readers take differently": (
            "parameter that YAML readers take differently",
        ),
        "a mounted ConfigMap edited": ("ConfigMap of a run edited",),
        "a mounted ConfigMap deleted": ("mounted ConfigMap deleted while it runs",),
        "a mounted ConfigMap made anew after the start": (
            (
                "tests/e2e/test_disturbances.py"
                "::test_a_configuration_that_is_deleted_and_made_anew_is_found"
            ),
            (
                "tests/e2e/test_after_admission.py"
                "::test_a_late_worker_does_not_read_a_configuration_made_anew"
            ),
        ),
        "a Secret through envFrom with a key named LD_PRELOAD": (
            "Secret through envFrom, a key of it LD_PRELOAD",
        ),
    },
    "Around the gate": {
        "a bare GPU pod": ("bare GPU pod",),
        "a GPU Job": ("GPU Job",),
        "a GPU Deployment": ("GPU Deployment",),
        "a GPU StatefulSet": ("GPU StatefulSet",),
        "GPU asked by an init container": ("GPU asked for by an init container",),
        "GPU asked by a limit only": ("GPU asked for by a limit alone",),
        "GPU asked by a resource claim": ("GPU by a resource claim",),
        "a pod that copies a sealed pod's labels": ("pod with a sealed pod's labels",),
        "a pod that copies a sealed pod's owner reference": (
            "pod with a sealed pod's owner reference",
        ),
        "an ephemeral container, kubectl debug": (
            "debug container (kubectl debug), with the right to it",
            "kubectl debug of the node",
        ),
        "kubectl exec": ("kubectl exec",),
        "kubectl attach": ("kubectl attach",),
        "kubectl port-forward": ("kubectl port-forward",),
        "kubectl cp": ("edited by kubectl cp",),
        "image patched in place": ("image of a running pod patched",),
        "processor and memory resized in place": (
            "worker resized in place, with the right to it",
            (
                "tests/e2e/test_resizes.py"
                "::test_a_worker_that_is_resized_as_the_policy_lets_goes_on_larger_and_is_no_finding"
            ),
        ),
        "the engine's object edited while suspended": (
            "Job of a run scaled to nothing",
            "Job of a run suspended past its TrainingJob",
            "label of a run's Job changed",
        ),
        "a second pod with the same index": ("second pod with the same index",),
        "a Job with a copied owner reference": ("GPU Job with the owner reference of a run's",),
        "a Service named master": (
            (
                "tests/e2e/test_after_admission.py"
                "::test_a_service_named_master_is_not_the_master_nor_is_one_needed"
            ),
        ),
        "the headless Service's selector changed": ("headless Service's selector changed",),
        "a CPU-only pod joining the rendezvous": (
            "CPU-only pod joining the rendezvous",
            "tests/e2e/test_network.py::test_ranks_reach_each_other_and_nobody_else_reaches_one",
        ),
        "bash of a shared file, signed once": ("bash of a file on a writable mount, signed once",),
        "borrowing a service account by impersonation": (
            "exec as a workload's service account, by impersonation",
        ),
        "borrowing a service account by a minted token": (
            "exec as a workload's service account, by a minted token",
        ),
        "a DeviceClass with an extended-resource name": (
            "GPU by a DeviceClass's extended-resource name",
        ),
        "NVIDIA_VISIBLE_DEVICES in the image's environment": (
            "NVIDIA_VISIBLE_DEVICES in the image's environment",
        ),
        "a registry chosen to reach an inner address": (
            "registry chosen to have an inner address called",
        ),
        "a static pod": ("static pod",),
        "the webhook scaled to zero": ("webhook scaled to zero",),
        "the webhook configuration edited": (
            "webhook configuration edited",
            "webhook configuration weakened, by an administrator",
        ),
        "a forged seal": ("forged seal, by an administrator", "seal edited, by an administrator"),
    },
    "Code on the node": {
        "installed PyTorch edited in place": (
            "installed optimizer edited by sed -i",
            "Python's random.py edited",
            "PyTorch's data loader edited",
        ),
        ".pth, sitecustomize, usercustomize": (
            ".pth file dropped",
            "sitecustomize dropped",
            "usercustomize dropped",
        ),
        "PYTHONPATH, PYTHONSTARTUP, LD_PRELOAD, ld.so.preload": (
            "PYTHONPATH to scratch",
            "PYTHONSTARTUP",
            "LD_PRELOAD of a library in scratch",
            "/etc/ld.so.preload",
        ),
        "a poisoned .pyc with a matching header": ("poisoned .pyc with a matching header",),
        "a shared object replaced": ("shared object replaced",),
        "a NCCL plugin or nccl.conf": (
            "NCCL plugin dropped",
            "NCCL plugin by variable",
            "/etc/nccl.conf",
        ),
        "a CUDA injection library": ("CUDA injection variable",),
        "written in an excepted path, renamed or linked into the code": (
            "written in an excepted place, renamed over code",
            "written in an excepted place, hard-linked into code",
        ),
        "changed through a held shared mapping": ("signed file changed through a held mapping",),
        "written into the overlay's upper directory": (
            "overlay's upper directory written from the node",
        ),
        "changed on the shared volume from outside, then back": (
            "shared volume changed from another node, then changed back",
        ),
    },
    "Checkpoints and data": {
        "a pickle that runs code on load": ("a pickle that runs code on load",),
        "a checkpoint replaced": (
            "weights altered on the volume, without code",
            "a checkpoint overwritten by exec",
        ),
        "a checkpoint signed again by the wrong person": (
            (
                "tests/unit/provenance/test_checkpointmanifests.py"
                "::test_a_key_that_the_keyring_does_not_hold_signs_nothing"
            ),
        ),
        "weights altered without code": ("weights altered on the volume, without code",),
        "a dataset shard replaced": ("a dataset shard replaced",),
    },
    "Processes": {
        "a dropped binary executed": (
            "dropped program run from scratch",
            "dropped program run from the root",
        ),
        "memfd execution": ("program run from memory (memfd)",),
        "a deleted executable": ("deleted executable",),
        "ptrace": ("ptrace held", "ptrace for a moment"),
        "/proc/PID/mem": ("/proc/PID/mem held for writing", "/proc/PID/mem written in a moment"),
        "sys.remote_exec": ("sys.remote_exec", "process_vm_writev"),
        "entering with nsenter from the node": (
            "entered from the node with nsenter",
            "nsenter for a moment, with an edit",
        ),
        "a foreign process on the GPU": ("foreign process on the GPU",),
        "SIGSTOP at random": ("SIGSTOP to a process of the trainer by exec",),
        "SIGKILL at random": (
            "SIGTERM to the trainer by exec",
            "SIGKILL to the trainer from the node",
        ),
        "kubectl delete pod at random": ("kubectl delete pod",),
    },
    "Behaviour": {
        "optimizer step wrapped in memory": (
            "optimizer step wrapped in memory, sign flipped or slept in at random",
        ),
        "learning rate changed at run time": ("learning rate changed at run time",),
        "only above a world size": ("only above a world size",),
        "only on one rank": ("one rank with a file that the policy excepts",),
    },
    "The watch itself": {
        "the agent killed": (
            "the agent killed again and again, 12 edits meanwhile",
            "agent and controller deleted, 4 edits meanwhile",
        ),
        "the agent starved or cut off": (
            "the agent stopped while a file is edited",
            "the agent stopped for good",
        ),
        "its event queue flooded": ("one bad write among 20,000 new files in the root",),
        "a burst of benign writes to hide one bad one": ("one bad write among 100,000 to scratch",),
        "a write and its undoing within a second": ("a write and its undoing within a second",),
        "clocks moved": ("clocks moved",),
        "evidence erased": ("evidence erased: job, events, report, seal, namespace",),
    },
}
