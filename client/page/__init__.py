"""A hospital's own pages: its ledger, policy and refusals. Changes nothing."""
