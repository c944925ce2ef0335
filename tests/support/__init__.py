"""What tests stand on: real services, real processes, and a way to wait for them."""
