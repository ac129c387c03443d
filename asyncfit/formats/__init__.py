"""File formats: plain and synchronous, h5py imported when a file is first touched."""
