"""Object stores behind one small interface. They know keys and bytes, and nothing of accounts or spaces."""
