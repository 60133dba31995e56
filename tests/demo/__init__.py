"""`make demo`: a person watches a signed training run, and five attempts against it fail.

`python -m tests.demo` brings a cluster up, installs the chart, makes keys and a policy, signs an
image, a code and a job with the commands a user would type, watches the training to its end, then
tries four things that must be refused and shows each refusal, and at last edits the PyTorch of a
training that runs. It is a check as much as a show: a step that does not end as it should makes the
demo fail, and so does taking more than five minutes where nothing had to be built.
"""
