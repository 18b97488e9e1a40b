"""How the schema came about, step by step; run by `Database.migrate` at every start."""
