"""The hospital: relay, custodian, policy, models, engine, trainer and tasks."""
