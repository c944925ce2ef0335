"""Support for tests: real services, real processes, and a way to wait for them."""
