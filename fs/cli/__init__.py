"""The command line, one module per family of commands. Talks to the mount process through its control socket."""
