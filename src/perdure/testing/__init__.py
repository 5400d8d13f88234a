"""What tests of durable code need: a clock set by hand, and the suite that every store must pass."""
