"""Everything kept on this machine: replica, drafts, chunk cache, push, pull, merge. May import `remote`, never `fs`."""
