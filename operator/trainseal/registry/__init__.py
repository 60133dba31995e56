"""OCI registries: resolve, fetch, list referrers (with the tag fallback), push and attach.

An asynchronous client on aiohttp, shared by webhook, controller, gate and command line. What it
promises: every byte that is returned under a digest has that digest; every answer is bounded in
size, in time, in redirects and in count, so that a lying or endless registry costs a bounded
amount; and the errors keep apart what a verdict must keep apart (``errors``). What it does not
promise: that anything a registry says is *true*. Annotations, referrer lists and artifact types
are hints for finding evidence; the evidence is judged elsewhere.

Why not on ``oras``: its client is synchronous (requests), reads bodies whole and unbounded, has no
referrers API, follows redirects and token realms without host rules, and its reading of
docker's config always adds the user's own file and runs credential helpers unasked. An admission
webhook can use none of that. What remains of it is a yardstick: the integration tests let oras
pull what this package pushed.
"""
