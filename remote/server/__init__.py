"""The service. Imports of `remote` only the protocol (`remote.protocol`, `remote.manifest`, `remote.names`)."""
