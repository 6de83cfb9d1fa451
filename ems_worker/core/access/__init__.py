"""Who may do what: rights by role, reply subjects, quotas and rates, and what a replay may send."""
