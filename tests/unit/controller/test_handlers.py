"""What the controller watches tells its queues, in the loop that they belong to."""

from __future__ import annotations

import inspect

from trainseal.controller.handlers import registry


def test_every_handler_is_called_in_our_own_loop() -> None:
    """kopf calls a plain function in a thread, from which no queue may be touched."""
    handlers = list(registry(lambda *_, **__: None)._watching.get_all_handlers())
    assert len(handlers) == 6
    for handler in handlers:
        assert inspect.iscoroutinefunction(handler.fn), handler.id
