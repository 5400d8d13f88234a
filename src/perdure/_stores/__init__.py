"""The stores: each one a database that remembers executions, behind the port of `_model.store`."""
