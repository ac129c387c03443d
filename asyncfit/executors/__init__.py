"""Where runs compute: in a thread, or, for tests, on the loop itself."""
