"""The value function that OREO trains beside the policy, and what it is good for at test time."""
