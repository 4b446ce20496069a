"""Model contracts: schema, loading, static checks, compiled plans."""
