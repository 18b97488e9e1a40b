"""HTTP routes: each reads a request, asks the service's modules, and answers. No SQL and no rules here."""
