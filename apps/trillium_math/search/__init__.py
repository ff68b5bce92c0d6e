"""Tree search over the steps of the agent, and preferences from what it visited."""
