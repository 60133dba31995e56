"""What of a process's environment and command line is told, and what is masked. Pure.

Trainers get their secrets in variables and on command lines; findings and evidence are read by more
people than those. The rules, in order:

1. A variable's value is shown only where its name decides which code is loaded (``loads_code``), or
   is one of a short list of harmless ones. A name that sounds like a secret's is none of the first.
2. In a command line the value of what sounds like a secret is masked: ``--token=…``, ``--token …``,
   ``API_KEY=…``, ``Authorization: …``, the password in a URL, ``-u user:…``.
3. In all that is shown, what has the form of a well-known token or of a private key is masked.

Of what is masked its length stands there: ``(8 characters)``. The rules for command lines go by
names and forms: a secret that stands there as a plain word is not known for one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from trainseal.agent.observed import Process
from trainseal.provenance.commandlines import loads_code

#: Variables whose values tell how a process was started, and no secret.
HARMLESS = frozenset(
    {
        "PATH", "HOME", "PWD", "OLDPWD", "SHELL", "USER", "LOGNAME", "HOSTNAME", "TERM", "TZ",
        "LANG", "LC_ALL", "SHLVL", "TMPDIR", "_",
        "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK",
        "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "JOB_COMPLETION_INDEX",
        "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG",
        "NCCL_DEBUG", "NCCL_SOCKET_IFNAME", "NCCL_IB_DISABLE", "NCCL_IB_HCA", "NCCL_P2P_DISABLE",
        "NCCL_ALGO", "NCCL_PROTO", "OMP_NUM_THREADS",
        "PYTHONUNBUFFERED", "PYTHONHASHSEED", "PYTHONDONTWRITEBYTECODE", "PYTHONFAULTHANDLER",
        "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT",
    }
)  # fmt: skip
_PLAIN_NAME = re.compile(r"[A-Za-z_][\w.%()-]{0,127}", re.ASCII)

#: What names of secrets end with, or have in front of another word.
_SOUNDS = (
    r"(?:token|secrets?|passwords?|passwd|passphrase|pass|pwd|credentials?|creds?|"
    r"apikey|auth|authorization|cookies?|signature|sig|sas|dsn|jwt|pat)\d*(?:[_.-][\w.-]{0,64})?"
)
#: Not ``max-tokens``, ``tokenizer``, ``key-dim``: trainers have those.
_NAME = rf"(?:{_SOUNDS}|keys?\d*)"
#: As shells put words together: each piece quoted or not.
_VALUE = r"""(?:"(?:[^"\\]|\\.)*"?|'[^']*'?|[^\s&;|"'])+"""
_SOUNDS_SECRET = re.compile(rf"{_NAME}$", re.IGNORECASE)
_ASSIGNED = re.compile(rf"""({_NAME}["']?\s*[=:]\s*)({_VALUE})""", re.IGNORECASE)
_OPTION = re.compile(rf"((?<!\S)--?[\w.-]{{0,64}}?{_NAME}\s+)({_VALUE})", re.IGNORECASE)
_WHOLE = re.compile(rf"(-{{0,2}}[\w.-]{{0,128}}?{_NAME}=)(.+)", re.IGNORECASE | re.DOTALL)
_USER = re.compile(r"((?<!\S)(?:-u|--user)[ =]?[^\s:'\"]*:)([^\s'\"]+)")
_BEARER = re.compile(r"(\b(?:bearer|basic)\s+)([\w.~+/=-]{4,})", re.IGNORECASE)
_IN_URL = re.compile(r"([a-z][a-z0-9+.-]{1,20}://)([^/\s'\"]+)(?=@)", re.IGNORECASE)
_FORMS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*|\b(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_\w{20,}|"
    r"github_pat_\w{20,}|glpat-[\w-]{16,}|hf_[A-Za-z0-9]{20,}|sk-[\w-]{16,}|xox[abeprs]-[\w-]{10,}|"
    r"AIza[\w-]{30,}|eyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*)?)",
    re.DOTALL | re.ASCII,
)
_MASK = re.compile(r"\(\d+ characters\)")
#: The option after which a shell's text stands, of words of its own.
_SCRIPT = re.compile(r"-[a-z]*c")
_AN_OPTION = re.compile(r"--[A-Za-z][\w-]*(?:=.*)?", re.DOTALL)
#: Of a longer text so much is looked at and shown.
_LOOKED_AT = 1024


def masked(text: str) -> str:
    """What stands for a text that is not shown."""
    return f"({len(text)} characters)"


def shown_variable(name: str, value: str) -> tuple[str, str]:
    """A variable as evidence has it: its name, and its value or how long that is."""
    if not _PLAIN_NAME.fullmatch(name):  # a title written over the environment, say
        return masked(name), masked(value)
    name = _without_forms(name)
    if name in HARMLESS or (loads_code(name) and not _sounds_secret(name)):
        return name, shown_text(value)
    return name, masked(value)


def shown_command(words: Sequence[str]) -> list[str]:
    """A command line's words as evidence has them."""
    found: list[str] = []
    hidden, before = False, ""
    for word in words:
        previous, before = before, word
        if hidden and not _AN_OPTION.fullmatch(word):
            found.append(masked(word))
            hidden = False
            continue
        hidden = word.startswith("-") and _sounds_secret(word)
        whole = None if _SCRIPT.fullmatch(previous) else _WHOLE.fullmatch(word)
        user, colon, password = word.partition(":")
        if whole:
            found.append(f"{whole[1]}{masked(whole[2])}")
        elif colon and previous in ("-u", "--user"):
            found.append(f"{shown_text(user)}:{masked(password)}")
        else:
            found.append(shown_text(word))
    return found


def named_by(process: Process, most: int = 200) -> str:
    """How a message names a process: its command line, at most so many characters of it."""
    return " ".join(shown_command(process.command[:most]))[:most] or process.executable


def shown_text(text: str) -> str:
    """A text of many words, such as a shell's ``-c``, without what is recognised as a secret."""
    text = text[:_LOOKED_AT]
    for pattern in (_IN_URL, _BEARER, _OPTION, _ASSIGNED, _USER):
        text = pattern.sub(_second, text)
    return _without_forms(text)


def _sounds_secret(name: str) -> bool:
    return _SOUNDS_SECRET.search(name) is not None


def _second(match: re.Match[str]) -> str:
    """What is in the second group is masked; what an earlier rule has masked stays as it is."""
    if _MASK.match(match.string, match.start(2)):
        return match[0]
    return f"{match[1]}{masked(match[2])}"


def _without_forms(text: str) -> str:
    return _FORMS.sub(lambda match: masked(match[0]), text)
