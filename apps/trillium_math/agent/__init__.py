"""The agent: a policy that reasons, runs Python in the sandbox, and boxes its answer."""
