"""What is read of a page."""

from __future__ import annotations

from tests.guides.pages import GUIDES, Printed, Typed, read, steps

PAGE = """\
# A page

Text, and `trainseal inline`, which nobody runs.

```console
$ kubectl apply \\
    -f job.yaml
Error: two
lines
ada$   trainseal digest
```

    $ trainseal drift
    found

      none

Then, without a prompt:

    kubectl get pods
    trainseal status x

- in a list:

      trainseal thaw

```yaml
kind: Job
```

    --set a=b
"""


def test_commands_are_read_with_their_answers_and_who_types_them() -> None:
    assert list(steps(PAGE)) == [
        Typed("kubectl apply \\\n    -f job.yaml", "Error: two\nlines"),
        Typed("trainseal digest", "", "ada"),
        Typed("trainseal drift", "found\n\n  none"),
        Typed("kubectl get pods"),
        Typed("trainseal status x"),
        Typed("trainseal thaw"),
        Printed("yaml", "kind: Job\n"),
        Printed("", "--set a=b\n"),
    ]


def test_a_block_that_only_looks_like_a_command_is_printed() -> None:
    (found,) = steps("```\nkubectl of a log\n```yaml\n".replace("```yaml", "```"))
    assert isinstance(found, Typed)
    (found,) = steps("```text\nkubectl of a log\n```\n")
    assert isinstance(found, Printed)


def test_every_guide_but_one_that_only_shows_a_job_has_commands() -> None:
    without = [g for g in GUIDES if not any(isinstance(s, Typed) for s in read(g))]
    assert without == ["how-to/resume.md"]
