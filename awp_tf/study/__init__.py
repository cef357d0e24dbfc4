"""A study: several recipes x seeds, one record a run, tables and figures over all of them."""
