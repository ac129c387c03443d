"""Where runs compute: in a thread, in a process of their own, or, for tests, on the loop itself."""
