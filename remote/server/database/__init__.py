"""The service's tables, its engine and its migrations: the only place that speaks SQL."""
