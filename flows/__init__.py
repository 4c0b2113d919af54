"""The only user of Prefect: a Plan becomes a flow with one task per step."""
