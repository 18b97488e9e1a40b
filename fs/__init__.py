"""What the kernel and the person see: FUSE, the mount process, the command line. May import `cache` and `remote`."""
