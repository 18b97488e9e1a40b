"""The service. Imports of `remote` only the wire (`protocol`, `accountapi`, `fileapi`) and what that speaks of."""
