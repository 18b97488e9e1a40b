"""Everything beyond the wire: the protocol, the client's interface to the service, and the service itself."""
