"""The node agent: sees what happens in the sealed pods of its node, and reports it."""
