"""The replica's database: the only place on the client that speaks SQL. Synchronous; called from one thread only."""
